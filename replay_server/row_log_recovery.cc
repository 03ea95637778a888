#include <algorithm>
#include <vector>

#include "replay_server/row_log.h"

namespace troupe {

// Was the commit that these counts include made before the crash?
bool RowLog::CommitHappened(const LogCountsSlot& slot) const {
  if (slot.generation == 0) return true;
  const BlockHeader& header = headers_[(slot.generation - 1) % metadata_.num_blocks];
  if (header.generation != slot.generation) return true;  // its block was evicted since
  return std::any_of(
      std::begin(header.slots), std::end(header.slots), [&](const CommitSlot& commit) {
        return commit.check == CommitCheck(header, commit) && commit.row_count >= slot.row_count;
      });
}

void RowLog::RecoverCounts(absl::Span<const LogCountsSlot> slots) {
  for (const LogCountsSlot& slot : slots) {
    if (!CountsSlotVerifies(slot) || !CommitHappened(slot)) continue;
    if (slot.sequence > newest_counts_.sequence) newest_counts_ = slot;
  }
  CommitCounts(newest_counts_.counts);  // over the slot that is not true, if there is one
}

void RowLog::RecoverBlocks() {
  std::vector<std::pair<uint32_t, CommitSlot>> found;
  const LogGeometry geometry = {.stride_bytes = metadata_.stride_bytes,
                                .num_blocks = metadata_.num_blocks};
  for (uint32_t block = 0; block < num_blocks(); ++block) {
    const BlockContents contents = VerifyBlock(headers_[block], block, geometry, row(block, 0));
    if (contents.damaged) corrupt_blocks_++;
    if (contents.committed.row_count > 0) {
      found.emplace_back(block, contents.committed);
    } else {
      headers_[block].generation = 0;
    }
  }
  std::sort(found.begin(), found.end(), [this](const auto& a, const auto& b) {
    return generation(a.first) < generation(b.first);
  });
  for (const auto& [block, committed] : found) RecoverBlock(block, committed);
  // A damaged block may have been the newest, and its row ids were given out: skip a whole ring,
  // which keeps generations in step with places.
  if (corrupt_blocks_ > 0) newest_generation_ += metadata_.num_blocks;
}

// REQUIRES: called in order of generations.
void RowLog::RecoverBlock(uint32_t block, const CommitSlot& committed) {
  BlockHeader& header = headers_[block];
  newest_generation_ = header.generation;
  Stream& stream = streams_[header.stream];
  if (header.first_row < stream.held) {  // sound by itself, but these rows are here already
    header.generation = 0;
    corrupt_blocks_++;
    return;
  }
  const bool continues = stream.block != kNoBlock && stream.held == header.first_row &&
                         header.first_row % kRowsPerBlock == 0;
  if (continues) Link(stream.block, block);
  header.finals &= SlotMask(header.first_row % kRowsPerBlock, committed.row_count);
  header.slots[(committed.sequence + 1) % 2].check = 0;  // older, or damaged and now counted
  stream.block = block;
  stream.num_blocks++;
  stream.newest = committed;
  stream.held = header.first_row + committed.row_count;
  row_counts_[block] = static_cast<uint8_t>(committed.row_count);
  rows_ += committed.row_count;
}

}  // namespace troupe
