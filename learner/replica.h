#ifndef TROUPE_LEARNER_REPLICA_H_
#define TROUPE_LEARNER_REPLICA_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/follow_client.h"
#include "common/replay_client.h"
#include "common/shard_directory.h"
#include "learner/algorithm.h"
#include "learner/replica_builder.h"
#include "proto/config.pb.h"

namespace troupe {

// The table in the learner's memory: rows as the shards store them, in the memory that the
// algorithm made, to be drawn from.
//
// Not thread-safe: belongs to the learner's thread, which takes the rows in between updates.
class Replica final {
 public:
  // For `learner.sampling` = REPLICA; `algorithm` outlives it.  RESOURCE_EXHAUSTED: it takes more
  // than `learner.max_replica_bytes`, or there is not so much memory; UNIMPLEMENTED: this algorithm
  // has no replica; FAILED_PRECONDITION: the shards cut other windows than the config says.
  static absl::StatusOr<std::unique_ptr<Replica>> Create(const proto::Config& config,
                                                         std::shared_ptr<ShardDirectory> directory,
                                                         const TableInfo& table,
                                                         Algorithm& algorithm);

  // Takes in what has come, for some milliseconds at most; if nothing has, waits until `deadline`.
  // Errors are FollowClient::Next's, but for DEADLINE_EXCEEDED, and the memory's.
  absl::Status Absorb(absl::Time deadline);

  // Has next to everything that the shards hold come, and can something be drawn?
  bool IsReady();
  // Rows and transitions that it holds now.
  uint64_t rows() const { return builder_->rows(); }
  uint64_t transitions() const { return builder_->size(); }
  FollowStats stats() const { return follower_->stats(); }

 private:
  Replica(std::unique_ptr<FollowClient> follower, std::unique_ptr<ReplicaBuilder> builder)
      : follower_(std::move(follower)), builder_(std::move(builder)) {}

  const std::unique_ptr<FollowClient> follower_;
  const std::unique_ptr<ReplicaBuilder> builder_;
  bool was_ready_ = false;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_REPLICA_H_
