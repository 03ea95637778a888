#ifndef TROUPE_ACTOR_RUN_ACTOR_H_
#define TROUPE_ACTOR_RUN_ACTOR_H_

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "actor/rollout.h"
#include "actor/row_writer.h"
#include "common/program.h"
#include "common/snapshot_client.h"
#include "proto/config.pb.h"

namespace troupe {

struct ActorOptions {
  proto::Environment environment;
  std::string asset_dir;
  int64_t num_threads = 1;
  int64_t actor_index = 0;
  uint64_t seed = 1;       // differs between any two incarnations of actors
  std::string output_dir;  // for actor-<index>.json, the counts at exit; empty: none
  std::string ledger;      // path for a Ledger of acked rows; empty: none
  // Rows that may be made but not acked, whatever the writer's buffer holds; where a rate limiter
  // ties acting to learning, older rows would be those of an old policy.
  int64_t max_rows_ahead = std::numeric_limits<int64_t>::max();
  bool with_log_prob = false;  // rows say how likely their action was
  int64_t state_size = 0;      // of the policy's memory, which rows carry; 0: it has none
  UnrollRule unroll;
  RowWriterOptions writer;
  SnapshotClientOptions snapshots;
};

// The whole life of an actor: connects, waits for a policy, steps until `stop` or until the
// learner's last snapshot, and gets its rows acked.
absl::Status RunActor(const ActorOptions& options, StopToken& stop, Metrics& metrics);

}  // namespace troupe

#endif  // TROUPE_ACTOR_RUN_ACTOR_H_
