#ifndef TROUPE_REPLAY_SERVER_FOLLOWER_H_
#define TROUPE_REPLAY_SERVER_FOLLOWER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/replay.pb.h"
#include "replay_server/row_log.h"
#include "replay_server/sample_batch.h"

namespace troupe {

// Rows and what is said about them in one reply to a follower take at most this, unless a single
// row is larger.
inline constexpr size_t kFollowChunkBytes = 256 << 10;
// At most what a run takes in a reply beside its rows.
inline constexpr size_t kFollowedRunOverheadBytes = 48;

// Consecutive rows of one block that may be read while the block is pinned.
struct FollowedRun {
  uint64_t block = 0;  // its generation
  uint64_t stream = 0;
  uint64_t first_row = 0;
  const uint8_t* rows = nullptr;
  size_t size_bytes = 0;
};

// What one reply to a follower says.
struct FollowBatch {
  std::vector<FollowedRun> runs;  // empty: the follower has everything
  PinnedRows pins;                // of their blocks
  size_t rows_bytes = 0;
  uint64_t num_rows = 0;
  uint64_t rows_missed = 0;
  LogCounts counts;

  // As it was made; what was allocated stays.
  void Clear();
};

// How far one follower of a row log has come.  It is told of every commit and eviction, so that
// what it is to get next is known without a search, however many streams there are.
//
// Not thread-safe: guarded by the mutex of the log's table from Place() on.
class Follower final {
 public:
  // Where `request` wants to go on.  INVALID_ARGUMENT: that is no position of any log.
  static absl::StatusOr<std::unique_ptr<Follower>> Make(const proto::FollowRequest& request);

  // Holds the position against what the log holds.  FAILED_PRECONDITION: it is none of this log.
  // A log that is not made yet is null.
  absl::Status Place(const RowLog* log);
  // Rows of a block were committed.
  void NoteCommit(uint64_t block_generation);
  // A block is about to be evicted.
  void NoteEviction(const RowLog& log, uint32_t block);
  // Fills `batch` with what comes next, pins it (pins[block index]) and counts it as sent.
  void Take(const RowLog& log, std::atomic<uint32_t>* pins, FollowBatch* batch);

 private:
  struct Partial {
    uint32_t rows = 0;     // that were sent
    bool changed = false;  // there are more
  };

  explicit Follower(uint64_t next_block) : next_block_(next_block) {}
  absl::Status PlacePartial(const RowLog& log, uint64_t generation, uint32_t block,
                            absl::flat_hash_map<uint64_t, Partial>* claimed);
  void TakeRows(const RowLog& log, uint64_t generation, std::atomic<uint32_t>* pins,
                FollowBatch* batch);

  // Blocks before this were begun; those of them that may still get rows are in partial_, and
  // of these those that have rows to be sent in changed_, which also names some that are gone.
  uint64_t next_block_;
  absl::flat_hash_map<uint64_t, Partial> partial_;
  std::deque<uint64_t> changed_;
  uint64_t rows_missed_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_FOLLOWER_H_
