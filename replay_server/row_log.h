#ifndef TROUPE_REPLAY_SERVER_ROW_LOG_H_
#define TROUPE_REPLAY_SERVER_ROW_LOG_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "replay_server/mapped_file.h"
#include "replay_server/row_log_format.h"

namespace troupe {

inline constexpr uint32_t kNoBlock = ~uint32_t{0};

// Sizes of encoded rows are multiples of this. Unit: bytes.
inline constexpr uint64_t kRowMultiple = 8;

// Rows copied into place but not yet committed.
struct StagedRows {
  uint64_t stream = 0;
  uint32_t block = kNoBlock;
  uint32_t first_slot = 0;
  uint32_t count = 0;
  uint64_t size_bytes = 0;
  uint64_t finals = 0;  // bits of the staged slots that hold final rows
};

// The ring of blocks of one table in one mapped file.  The process may be killed at any
// instruction: what Commit() returned from is there again after Recover().
//
// Not thread-safe: its table's mutex guards all but the bytes of committed rows, which do not
// change until their block is evicted and may be read by anybody who prevents that.
class RowLog final {
 public:
  // Makes `path` anew, all of it allocated, but for the places of encoded rows.  `synced`: it is
  // there after a loss of power, too.
  static absl::StatusOr<std::unique_ptr<RowLog>> Create(const std::string& path,
                                                        const LogMetadata& metadata,
                                                        bool synced = false);
  // Reads `path`, verifies every committed row and drops blocks that do not verify.  A file that is
  // cut off behind its block headers gets its size back: the rows that are missing do not verify.
  static absl::StatusOr<std::unique_ptr<RowLog>> Recover(const std::string& path);
  // The same of a file that stays as it is: what is mended is mended in memory alone.
  static absl::StatusOr<std::unique_ptr<RowLog>> RecoverPrivately(const std::string& path);

  const LogMetadata& metadata() const { return metadata_; }
  uint32_t num_blocks() const { return static_cast<uint32_t>(metadata_.num_blocks); }
  uint64_t stride_bytes() const { return metadata_.stride_bytes; }
  // Where rows end.
  const RowSizes& row_sizes() const { return geometry_.rows; }
  const LogCounts& counts() const { return counts_; }
  uint64_t rows() const { return rows_; }
  uint64_t rows_evicted() const { return rows_evicted_; }  // since the process began
  // Of recovery: blocks of which something committed did not verify, and the first few in words.
  uint64_t corrupt_blocks() const { return corrupt_blocks_; }
  const std::vector<std::string>& losses() const { return losses_; }
  // Of recovery: no counts verified, counts() is all zero.
  bool counts_lost() const { return counts_lost_; }
  // Of the block that was begun last; 0: none was.
  uint64_t newest_generation() const { return newest_generation_; }
  uint64_t num_streams() const { return streams_.size(); }

  // Rows of the stream with smaller numbers than this are or were here; 0: unknown stream.
  uint64_t HeldRows(uint64_t stream) const;

  // --- Appending: while bytes are left { Reserve, evict the victim, Stage, Commit }. ---
  // Makes the file system give what the next Stage() of these rows needs; nothing is to be done
  // where rows are packed.  RESOURCE_EXHAUSTED: it has no space left; nothing has changed.
  absl::Status Reserve(uint64_t stream, absl::string_view rows);
  // The block that the next Stage() of `stream` needs emptied; kNoBlock: none.
  uint32_t Victim(uint64_t stream) const;
  // Blocks that must be begun before the stream holds `rows` rows.
  uint64_t BlocksNeeded(uint64_t stream, uint64_t rows) const;
  // How many blocks can be begun before one must be evicted, at most `at_most`.
  uint64_t EmptyBlocksAhead(uint64_t at_most) const;
  void Evict(uint32_t block);
  // Copies as many whole rows of `rows` as fit into the stream's block, at least one.
  // REQUIRES: Victim(stream) == kNoBlock, `rows` is a positive number of whole rows, reserved for.
  StagedRows Stage(uint64_t stream, absl::string_view rows);
  // Makes the last staged rows and `counts`, which include them, permanent together.
  void Commit(const StagedRows& staged, const LogCounts& counts);
  // Makes counts permanent that no rows go with.
  void CommitCounts(const LogCounts& counts);

  // --- Disk. ---
  // Once called, commits keep what is on the disk readable there: at every moment the newest commit
  // before the last BeginSync() that has ended verifies, whatever part of later stores got to
  // the disk.  REQUIRES: nothing was committed since the log was made or recovered.  The first
  // Sync() comes after it and before the first commit.
  void KeepSynced();
  // Rows are acked before they are on the disk.
  void ForgetSynced() { *synced_ = 0; }
  // What was committed before BeginSync() survives the loss of power once Sync() was OK and
  // EndSync() is called.  Sync() may run beside everything else.
  void BeginSync() {
    syncing_epoch_ = epoch_++;
    syncing_generation_ = newest_generation_;
  }
  absl::Status Sync() const { return file_.Sync(); }
  void EndSync() {
    durable_epoch_ = syncing_epoch_;
    *synced_ = EncodeSynced(syncing_generation_);
  }
  // Before Sync(), after one that failed: everything will be written again, as the kernel may take
  // pages for written that are not.  May run beside everything else where rows are packed.
  void Redirty();
  // Does every row that was committed verify?  Not so if the kernel dropped a page.
  bool Intact() const;

  // --- Blocks. ---
  uint32_t row_count(uint32_t block) const { return row_counts_[block]; }
  // The row number of slot 0, stored or not.
  uint64_t base_row(uint32_t block) const;
  uint64_t first_row(uint32_t block) const { return headers_[block].first_row; }
  uint64_t stream(uint32_t block) const { return headers_[block].stream; }
  uint64_t finals(uint32_t block) const { return finals_[block]; }
  uint64_t generation(uint32_t block) const { return headers_[block].generation; }
  // The blocks with the rows just before and just after; kNoBlock where they are not here.
  uint32_t previous(uint32_t block) const { return previous_[block]; }
  uint32_t next(uint32_t block) const { return next_[block]; }
  const uint8_t* row(uint32_t block, uint32_t slot) const {
    return row_ends_.empty()
               ? row_bytes_ + (uint64_t{block} * kRowsPerBlock + slot) * metadata_.stride_bytes
               : row_bytes_ + block * geometry_.block_bytes() + RowBegin(block, slot);
  }
  // Size of `count` rows from row(block, slot) on.  REQUIRES: they are stored.
  uint64_t RowsBytes(uint32_t block, uint32_t slot, uint32_t count) const {
    return row_ends_.empty() ? count * metadata_.stride_bytes
                             : RowBegin(block, slot + count) - RowBegin(block, slot);
  }
  // Asks memory for what RowId and next read of the block.
  void Prefetch(uint32_t block) const {
    __builtin_prefetch(&headers_[block]);
    __builtin_prefetch(&next_[block]);
  }
  // How often the window that starts at the slot was sampled; 0 in a new block.
  uint8_t& times_sampled(uint32_t block, uint32_t slot) {
    return times_[uint64_t{block} * kRowsPerBlock + slot];
  }
  // Priority of the window that starts at the slot; 0 in a new block.  REQUIRES:
  // metadata().has_priorities.
  float& priority(uint32_t block, uint32_t slot) {
    return priorities_[uint64_t{block} * kRowsPerBlock + slot];
  }
  // Identifies a row for good.
  uint64_t RowId(uint32_t block, uint32_t slot) const {
    return generation(block) * kRowsPerBlock + slot;
  }
  // The block that a row id lies in, if it is not evicted.
  std::optional<uint32_t> FindBlock(uint64_t row_id) const;
  // Copies what lies before the rows in the file, as it is now.  REQUIRES: `to` has that size.
  void CopyAllButRows(absl::Span<uint8_t> to) const;
  // Blocks that hold rows, oldest first.
  std::vector<uint32_t> BlocksByAge() const;

 private:
  struct Stream {
    uint64_t held = 0;
    uint32_t block = kNoBlock;  // the newest, unless it was evicted
    uint32_t num_blocks = 0;
    // Of that block: its newest commit, and when each slot was written.
    CommitSlot newest = {};
    std::array<uint64_t, kCommitSlots> epochs = {};
  };

  static absl::StatusOr<std::unique_ptr<RowLog>> RecoverFile(absl::StatusOr<MappedFile> file,
                                                             const std::string& path);
  RowLog(MappedFile file, LogMetadata metadata, const LogGeometry& geometry);
  // row_log_places.cc: encoded rows
  // Where the row begins in its block's place, or would begin if it is the next. Unit: bytes.
  uint64_t RowBegin(uint32_t block, uint32_t slot) const {
    if (slot == headers_[block].first_row % kRowsPerBlock) return 0;
    return uint64_t{row_ends_[uint64_t{block} * kRowsPerBlock + slot - 1]} * kRowMultiple;
  }
  void CopyEncoded(absl::string_view rows, StagedRows* staged);
  absl::Status AllocateRows(uint32_t block, uint64_t size_bytes);
  void NoteRowEnds(uint32_t block, uint32_t first_slot, uint32_t count);
  void GiveBackRest(uint32_t block, uint64_t size_bytes);

  void OpenBlock(uint64_t stream_id, Stream* stream);
  void WriteCounts(const LogCounts& counts, uint64_t generation, uint32_t row_count);
  void RecoverBlocks();
  void RecoverBlock(uint32_t block, const CommitSlot& committed);
  void RecoverCounts(absl::Span<const LogCountsSlot> slots);
  // Was it begun after the last sync, while what came before it in its stream did not reach the
  // disk?
  bool IsBehindUnsynced(const BlockHeader& header) const;
  bool CommitHappened(const LogCountsSlot& slot) const;
  void NoteLoss(uint32_t block, uint64_t rows_left);
  int SlotToOverwrite(const BlockHeader& header, const Stream& stream) const;
  void Link(uint32_t before, uint32_t after);
  void ForgetStreamsWithoutBlocks();

  MappedFile file_;
  const LogMetadata metadata_;
  const LogGeometry geometry_;
  LogCountsSlot* const counts_slots_;
  uint64_t* const synced_;
  BlockHeader* const headers_;
  uint8_t* const times_;
  float* const priorities_;  // null: none
  uint8_t* const row_bytes_;

  absl::flat_hash_map<uint64_t, Stream> streams_;
  std::vector<uint8_t> row_counts_;
  std::vector<uint64_t> finals_;
  // Of encoded rows; else empty.  Where each ends in its block's place, in multiples of 8 bytes,
  // ...
  std::vector<uint32_t> row_ends_;
  // ... and what of the place the file system has given. Unit: bytes.
  struct Space {
    uint64_t at_least = 0;
    uint64_t at_most = 0;
  };
  std::vector<Space> space_;
  std::vector<uint32_t> previous_;
  std::vector<uint32_t> next_;
  uint64_t newest_generation_ = 0;
  LogCounts counts_;
  LogCountsSlot newest_counts_ = {};
  bool counts_lost_ = false;
  uint64_t rows_ = 0;
  uint64_t rows_evicted_ = 0;
  uint64_t corrupt_blocks_ = 0;
  std::vector<std::string> losses_;
  // A commit is numbered with the epoch it is made in; those of durable_epoch_ and before are safe.
  uint64_t epoch_ = 1;
  uint64_t syncing_epoch_ = ~uint64_t{0};
  uint64_t syncing_generation_ = 0;
  uint64_t durable_epoch_ = ~uint64_t{0};
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_ROW_LOG_H_
