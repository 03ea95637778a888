#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "replay_server/row_log.h"

namespace troupe {
namespace {

// Losses that are told one by one.
constexpr size_t kMaxLosses = 16;

}  // namespace

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
  // After a loss of power the commit of neither may be there: then the older is the nearer one.
  const LogCountsSlot* happened = nullptr;
  const LogCountsSlot* verifies = nullptr;
  for (const LogCountsSlot& slot : slots) {
    if (!CountsSlotVerifies(slot)) continue;
    if (verifies == nullptr || slot.sequence < verifies->sequence) verifies = &slot;
    if (!CommitHappened(slot)) continue;
    if (happened == nullptr || slot.sequence > happened->sequence) happened = &slot;
  }
  counts_lost_ = verifies == nullptr;
  if (counts_lost_) return;
  newest_counts_ = happened != nullptr ? *happened : *verifies;
  CommitCounts(newest_counts_.counts);  // over the slot that is not true, if there is one
}

void RowLog::NoteLoss(uint32_t block, uint64_t rows_left) {
  corrupt_blocks_++;
  if (losses_.size() >= kMaxLosses) return;
  const BlockHeader& header = headers_[block];
  losses_.push_back(absl::StrCat(
      "block ", header.generation, " at index ", block, ", stream ",
      absl::Hex(header.stream, absl::kZeroPad16), " from row ", header.first_row, ": ",
      rows_left == 0 ? "nothing of it verifies, dropped"
                     : absl::StrCat("only its first ", rows_left, " rows verify, kept")));
}

void RowLog::RecoverBlocks() {
  std::vector<std::pair<uint32_t, CommitSlot>> found;
  for (uint32_t block = 0; block < num_blocks(); ++block) {
    const BlockContents contents = VerifyBlock(headers_[block], block, geometry_,
                                               row_bytes_ + block * geometry_.block_bytes());
    if (!space_.empty()) space_[block].at_most = geometry_.block_bytes();
    if (contents.damaged) NoteLoss(block, contents.committed.row_count);
    if (contents.committed.row_count > 0) {
      finals_[block] = contents.finals;
      const uint64_t first_slot = headers_[block].first_row % kRowsPerBlock;
      if (!row_ends_.empty()) NoteRowEnds(block, first_slot, contents.committed.row_count);
      found.emplace_back(block, contents.committed);
    } else if (contents.damaged || headers_[block].generation != 0) {
      headers_[block].generation = kEvicted;
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

// Power was lost: a later block is on the disk, an earlier one of its stream is not.  Kept, its
// rows would tell the writer that those before them are held.  None of them was acked, unless the
// ring was filled once within two syncs.
bool RowLog::IsBehindUnsynced(const BlockHeader& header) const {
  const std::optional<uint64_t> synced = DecodeSynced(*synced_);
  if (!synced.has_value() || header.generation <= *synced || (header.follows & 1) == 0)
    return false;
  const auto found = streams_.find(header.stream);
  return found == streams_.end() || found->second.held != header.first_row;
}

// REQUIRES: called in order of generations.
void RowLog::RecoverBlock(uint32_t block, const CommitSlot& committed) {
  BlockHeader& header = headers_[block];
  newest_generation_ = header.generation;
  if (IsBehindUnsynced(header)) {
    header.generation = kEvicted;
    return;
  }
  Stream& stream = streams_[header.stream];
  if (header.first_row < stream.held) {  // sound by itself, but these rows are here already
    NoteLoss(block, 0);
    header.generation = kEvicted;
    return;
  }
  const bool continues = stream.block != kNoBlock && stream.held == header.first_row &&
                         header.first_row % kRowsPerBlock == 0;
  if (continues) Link(stream.block, block);
  for (CommitSlot& slot : header.slots) {  // the others are older, or damaged and now counted
    if (slot.row_count != committed.row_count || slot.check != committed.check) slot = {};
  }
  stream.block = block;
  stream.num_blocks++;
  stream.newest = committed;
  stream.epochs = {};
  stream.held = header.first_row + committed.row_count;
  row_counts_[block] = static_cast<uint8_t>(committed.row_count);
  rows_ += committed.row_count;
  if (priorities_ != nullptr) {
    for (uint32_t slot = 0; slot < kRowsPerBlock; ++slot) {
      float& value = priority(block, slot);
      if (!(value >= 0 && value <= std::numeric_limits<float>::max())) value = 0;
    }
  }
}

}  // namespace troupe
