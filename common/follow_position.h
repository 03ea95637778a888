#ifndef TROUPE_COMMON_FOLLOW_POSITION_H_
#define TROUPE_COMMON_FOLLOW_POSITION_H_

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "proto/replay.pb.h"

namespace troupe {

// How far a table was followed: which of its rows have come, so that a new call goes on there.
// Its memory is bounded by the blocks of the table.  Not thread-safe.
class FollowPosition final {
 public:
  // Of a table of `capacity_rows` rows of `stride_bytes`.
  FollowPosition(int64_t capacity_rows, int64_t stride_bytes);

  // Takes the rows of a reply as received.  INTERNAL: they are no whole rows, or do not go on where
  // the position is; it is of no use then.
  absl::Status Advance(const proto::FollowReply& reply);
  // Nothing was received.
  void Reset();
  bool at_the_beginning() const { return next_block_ == 1; }
  // Sets where to go on.
  void Describe(proto::FollowRequest* request);

 private:
  // A block that may still get rows.
  struct Partial {
    uint32_t rows = 0;      // received
    uint32_t end_slot = 0;  // of the next one
  };

  absl::Status AdvanceRun(const proto::FollowedRows& run);
  // Forgets blocks that the ring has given up.
  void Prune();

  const int64_t stride_bytes_;
  const uint64_t num_blocks_;
  uint64_t next_block_ = 1;
  absl::flat_hash_map<uint64_t, Partial> partial_;  // blocks before next_block_
};

}  // namespace troupe

#endif  // TROUPE_COMMON_FOLLOW_POSITION_H_
