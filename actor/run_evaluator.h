#ifndef TROUPE_ACTOR_RUN_EVALUATOR_H_
#define TROUPE_ACTOR_RUN_EVALUATOR_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics.h"
#include "common/program.h"
#include "common/snapshot_client.h"
#include "proto/config.pb.h"

namespace troupe {

struct EvaluatorOptions {
  proto::Environment environment;
  std::string asset_dir;
  proto::Evaluator evaluator;
  uint64_t seed = 1;
  std::string output_dir = ".";  // for evaluations.jsonl and TensorBoard files
  SnapshotClientOptions snapshots;
};

// What EvaluateOnce evaluates.
struct EvaluateOnceOptions {
  // A checkpoint, the folder of a run's checkpoints, or the run's own; empty: the newest snapshot
  // of the shards.
  std::string checkpoint = {};
  // For a snapshot.
  absl::Duration patience = absl::Seconds(30);
};

// Evaluates the newest policy whenever the run has come `interval_env_steps` further, for at most a
// quarter of the time, and the last one, until `stop`.  The calling thread, and those that it
// starts here, get a low priority.
absl::Status RunEvaluator(const EvaluatorOptions& options, StopToken& stop, Metrics& metrics);

// Evaluates one policy and prints mean and standard deviation of the returns to `out`.
// DEADLINE_EXCEEDED: no shard has a snapshot; NOT_FOUND, DATA_LOSS: no good checkpoint.
absl::Status EvaluateOnce(const EvaluatorOptions& options, const EvaluateOnceOptions& once,
                          const StopToken& stop, std::ostream& out);

}  // namespace troupe

#endif  // TROUPE_ACTOR_RUN_EVALUATOR_H_
