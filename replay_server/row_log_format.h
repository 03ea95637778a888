#ifndef TROUPE_REPLAY_SERVER_ROW_LOG_FORMAT_H_
#define TROUPE_REPLAY_SERVER_ROW_LOG_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/row_sizes.h"

// A row log on disk, little-endian, each part at a multiple of 4096 bytes:
//
//   FileHeader, metadata        what the log is; written once
//   two LogCountsSlots          counts, written in turn
//   uint64                      what is on the disk: EncodeSynced()
//   BlockHeader x num_blocks
//   uint8 x num_blocks x 64     how often the window that starts at a row was sampled
//   float32 x num_blocks x 64   priority of the window that starts at a row, if has_priorities
//   rows                        num_blocks x 64 x stride bytes
//
// The stride is that of packed rows, each of which lies at its slot.  Encoded rows (columns are
// compressed, common/row_sizes.h) lie one behind the other from where their block's place begins;
// the stride is the size of the largest, and what lies behind a block's rows is a hole in the file.
//
// Everything here is a pure function of bytes that may be damaged in any way.
namespace troupe {

// Row r of a stream lies at slot r % 64 of its block.
inline constexpr uint32_t kRowsPerBlock = 64;

// What a log is, fixed when it is made.
struct LogMetadata {
  std::string run;
  std::string table;
  std::string layout;  // serialized proto::Layout
  uint64_t stride_bytes = 0;
  uint64_t num_blocks = 0;
  bool has_priorities = false;
  bool has_encoded_rows = false;  // as the layout says
};

struct FileHeader {
  char magic[8];
  uint32_t format_version;
  uint32_t check;  // CRC-32C of the rest of this struct and of the metadata
  uint64_t stride_bytes;
  uint64_t num_blocks;
  uint64_t metadata_bytes;
  uint64_t has_priorities;  // 0 or 1
};
static_assert(sizeof(FileHeader) == 48);

// Where the parts lie. Unit: bytes from the start of the file.
struct LogGeometry {
  uint64_t stride_bytes = 0;
  uint64_t num_blocks = 0;
  uint64_t counts_offset = 0;
  uint64_t headers_offset = 0;
  uint64_t times_offset = 0;
  uint64_t priorities_offset = 0;
  uint64_t rows_offset = 0;
  uint64_t file_bytes = 0;
  RowSizes rows = RowSizes(uint64_t{0});

  uint64_t block_bytes() const { return kRowsPerBlock * stride_bytes; }
  uint64_t block_offset(uint64_t block) const { return rows_offset + block * block_bytes(); }
};

// INVALID_ARGUMENT: sizes that no log can have, or encoded rows of another layout.
absl::StatusOr<LogGeometry> ComputeGeometry(const LogMetadata& metadata);

// What of the file is allocated when it is made: all of it, or all but the places of encoded rows.
inline uint64_t AllocatedBytes(const LogGeometry& geometry) {
  return geometry.rows.all_alike() ? geometry.file_bytes : geometry.rows_offset;
}

// The first bytes of a file: header and metadata.
std::string EncodeFileHeader(const LogMetadata& metadata);
// DATA_LOSS: not a row log, damaged, or shorter than it says; UNIMPLEMENTED: another version.
// `may_be_cut`: it may be shorter, if all block headers are there.
absl::StatusOr<LogMetadata> ParseFileHeader(absl::Span<const uint8_t> file,
                                            bool may_be_cut = false);

// Counts over the life of the log.
struct LogCounts {
  uint64_t env_steps = 0;
  uint64_t inserted = 0;
  uint64_t sampled = 0;
  uint64_t rows_appended = 0;
  uint64_t rows_duplicate = 0;
  uint64_t preloaded = 0;
};

// Counts are written before the commit that they include, and name it: if the commit is not
// there after a crash, the other slot is the truth.
struct LogCountsSlot {
  LogCounts counts;
  uint64_t sequence;    // newer is larger; the slot is sequence % 2
  uint64_t generation;  // the block of the newest commit; 0: none yet
  uint32_t row_count;   // its rows after that commit
  uint32_t check;       // CRC-32C of all above
};
static_assert(sizeof(LogCountsSlot) == 72);

LogCountsSlot MakeCountsSlot(const LogCounts& counts, uint64_t generation, uint32_t row_count,
                             uint64_t sequence);
// True of a slot that was never written: all of it is zero.
bool CountsSlotVerifies(const LogCountsSlot& slot);

// Says that the first `row_count` rows of a block are stored.
struct CommitSlot {
  uint32_t row_count;
  uint32_t rows_crc32c;  // of those rows
  uint32_t check;        // 0: being written, or never; else CommitCheck()
};

// Three, so that a commit never overwrites the newest that is on the disk for sure, nor the newest
// that a running fdatasync is writing there.
inline constexpr int kCommitSlots = 3;

// The generation of a block that was given up.
inline constexpr uint64_t kEvicted = ~uint64_t{0};

// `generation` numbers the blocks of a log in the order in which they were begun, from 1; block
// g lies at index (g - 1) % num_blocks.  A block never used is all zeros.
struct BlockHeader {
  uint64_t stream;
  uint64_t first_row;
  uint64_t generation;
  CommitSlot slots[kCommitSlots];  // in no order: the newest has the most rows
  uint32_t follows;  // 1: the block before it in its stream was in the log when it was begun
};
static_assert(sizeof(BlockHeader) == 64);

// Says that blocks up to this generation are on the disk.  0: nothing is known, rows were acked
// before they were.
uint64_t EncodeSynced(uint64_t generation);
// Nothing: nothing is known.
std::optional<uint64_t> DecodeSynced(uint64_t word);

// Slots [first_slot, first_slot + count) as bits.  REQUIRES: first_slot + count <= 64.
uint64_t SlotMask(uint32_t first_slot, uint32_t count);

// Never 0.  Covers the slot and the header but for the other slots.
uint32_t CommitCheck(const BlockHeader& header, const CommitSlot& slot);

// What can be trusted of one block.
struct BlockContents {
  CommitSlot committed = {};  // row_count 0: nothing
  uint64_t finals = 0;        // bit s: slot s holds a final row
  bool damaged = false;       // something that was committed does not verify
};

// The first `count` rows of a block from row number `first_row` on.  `place` points at its
// block_bytes(), all of which are readable.  Nothing: there are not so many.
std::optional<absl::string_view> StoredRows(const LogGeometry& geometry, const uint8_t* place,
                                            uint64_t first_row, uint32_t count);

// `place` as above.
BlockContents VerifyBlock(const BlockHeader& header, uint64_t block_index,
                          const LogGeometry& geometry, const uint8_t* place);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_ROW_LOG_FORMAT_H_
