#ifndef TROUPE_COMMON_SNAPSHOT_ASSEMBLER_H_
#define TROUPE_COMMON_SNAPSHOT_ASSEMBLER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/snapshot.h"
#include "proto/weights.pb.h"

namespace troupe {

// Puts the chunks of one subscription together, one snapshot after another.  Not thread-safe.
class SnapshotAssembler final {
 public:
  SnapshotAssembler(std::string run, int64_t max_snapshot_bytes)
      : run_(std::move(run)), max_snapshot_bytes_(max_snapshot_bytes) {}

  // Returns the snapshot that `chunk` completes, nullptr if more is to come.
  // DATA_LOSS: the bytes cannot be a snapshot of this run; the subscription is of no more use.
  absl::StatusOr<std::shared_ptr<Snapshot>> Add(const proto::SnapshotChunk& chunk);

 private:
  absl::Status Begin(const proto::SnapshotHeader& header);

  const std::string run_;
  const int64_t max_snapshot_bytes_;
  std::shared_ptr<Snapshot> snapshot_;  // under way; grows as bytes come, not as announced
  size_t size_bytes_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_SNAPSHOT_ASSEMBLER_H_
