// The part of RowLog that concerns encoded rows: where they lie in their blocks' places, and what
// of the places the file system has given.
#include <algorithm>
#include <cstring>

#include "common/layout.h"
#include "replay_server/row_log.h"

namespace troupe {
namespace {

// Places are allocated in multiples of this, or each message would ask the file system.
constexpr uint64_t kAllocatedBytes = 64 << 10;
constexpr uint64_t kPageBytes = 4096;

uint64_t RoundUp(uint64_t bytes, uint64_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

}  // namespace

absl::Status RowLog::Reserve(uint64_t stream_id, absl::string_view rows) {
  if (row_ends_.empty()) return absl::OkStatus();
  const auto found = streams_.find(stream_id);
  const uint64_t held = found == streams_.end() ? 0 : found->second.held;
  const auto slot = static_cast<uint32_t>(held % kRowsPerBlock);
  const bool begins_block = found == streams_.end() || found->second.block == kNoBlock || slot == 0;
  const uint32_t block = begins_block
                             ? static_cast<uint32_t>(newest_generation_ % metadata_.num_blocks)
                             : found->second.block;
  uint64_t size_bytes = begins_block ? 0 : RowBegin(block, slot);
  for (uint32_t left = kRowsPerBlock - slot; left > 0 && !rows.empty(); --left) {
    const size_t row_bytes = row_sizes().First(rows);
    size_bytes += row_bytes;
    rows.remove_prefix(row_bytes);
  }
  return AllocateRows(block, size_bytes);
}

void RowLog::CopyEncoded(absl::string_view rows, StagedRows* staged) {
  uint32_t slot = staged->first_slot;
  for (absl::string_view rest = rows; !rest.empty() && slot < kRowsPerBlock; ++slot) {
    const bool is_final = IsFinal(ReadRowHeader(rest.data()).flags);
    staged->finals |= uint64_t{is_final} << slot;
    const size_t row_bytes = row_sizes().First(rest);
    staged->size_bytes += row_bytes;
    rest.remove_prefix(row_bytes);
  }
  staged->count = slot - staged->first_slot;
  auto* const to = const_cast<uint8_t*>(row(staged->block, staged->first_slot));
  std::memcpy(to, rows.data(), staged->size_bytes);
  NoteRowEnds(staged->block, staged->first_slot, staged->count);
}

absl::Status RowLog::AllocateRows(uint32_t block, uint64_t size_bytes) {
  Space& space = space_[block];
  if (size_bytes <= space.at_least) return absl::OkStatus();
  const uint64_t wanted = std::min(RoundUp(size_bytes, kAllocatedBytes), geometry_.block_bytes());
  const uint64_t begin = geometry_.block_offset(block);
  absl::Status status = file_.Allocate(begin + space.at_least, wanted - space.at_least);
  if (!status.ok()) return status;
  space.at_least = wanted;
  space.at_most = std::max(space.at_most, wanted);
  return absl::OkStatus();
}

// Reads the rows' sizes where they lie.  A block that is full gives back what it does not need: of
// the last allocation, and of rows before these that were larger.
void RowLog::NoteRowEnds(uint32_t block, uint32_t first_slot, uint32_t count) {
  uint64_t end = RowBegin(block, first_slot);
  const auto* const place =
      reinterpret_cast<const char*>(row_bytes_ + block * geometry_.block_bytes());
  for (uint32_t slot = first_slot; slot < first_slot + count; ++slot) {
    end += row_sizes().First({place + end, geometry_.block_bytes() - end});
    row_ends_[uint64_t{block} * kRowsPerBlock + slot] = static_cast<uint32_t>(end / kRowMultiple);
  }
  if (first_slot + count == kRowsPerBlock) GiveBackRest(block, end);
}

void RowLog::GiveBackRest(uint32_t block, uint64_t size_bytes) {
  Space& space = space_[block];
  const uint64_t begin = geometry_.block_offset(block);
  const uint64_t kept = RoundUp(begin + size_bytes, kPageBytes) - begin;
  if (kept >= space.at_most || !file_.GiveBack(begin + kept, space.at_most - kept)) return;
  space.at_least = std::min(space.at_least, kept);
  space.at_most = kept;
}

}  // namespace troupe
