#include "common/follow_position.h"

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr uint64_t kRowsInBlock = 64;
// Rows are numbered below this.
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;
// More are not accepted in one request.
constexpr size_t kMaxPartialBlocks = 1 << 18;

}  // namespace

FollowPosition::FollowPosition(int64_t capacity_rows, int64_t stride_bytes)
    : stride_bytes_(stride_bytes),
      num_blocks_((static_cast<uint64_t>(capacity_rows) + kRowsInBlock - 1) / kRowsInBlock) {}

void FollowPosition::Reset() {
  next_block_ = 1;
  partial_.clear();
}

absl::Status FollowPosition::Advance(const proto::FollowReply& reply) {
  for (const proto::FollowedRows& run : reply.runs()) {
    if (absl::Status status = AdvanceRun(run); !status.ok()) return status;
  }
  // What is open is at most what is in the ring; the rest has been given up.
  if (partial_.size() > num_blocks_ + kRowsInBlock) Prune();
  return absl::OkStatus();
}

absl::Status FollowPosition::AdvanceRun(const proto::FollowedRows& run) {
  const uint64_t stride = static_cast<uint64_t>(stride_bytes_);
  const uint64_t count = run.rows().size() / stride;
  const uint64_t first_slot = run.first_row() % kRowsInBlock;
  const auto known = partial_.find(run.block());
  const bool is_new = run.block() >= next_block_;
  const bool goes_on = known != partial_.end() && known->second.end_slot == first_slot;
  if (count == 0 || run.rows().size() % stride != 0 || first_slot + count > kRowsInBlock ||
      run.first_row() > kMaxRowNumber || run.block() > kMaxRowNumber || (!is_new && !goes_on)) {
    return absl::InternalError(absl::StrCat(
        run.rows().size(), " bytes for rows of ", stride, " from row ", run.first_row(),
        " of block ", run.block(),
        " on do not follow what came: ", known == partial_.end() ? 0 : known->second.rows,
        " rows of it, all before block ", next_block_));
  }
  Partial& block = partial_[run.block()];
  block.rows += static_cast<uint32_t>(count);
  block.end_slot = static_cast<uint32_t>(first_slot + count);
  if (block.end_slot == kRowsInBlock) partial_.erase(run.block());
  if (is_new) next_block_ = run.block() + 1;
  return absl::OkStatus();
}

void FollowPosition::Prune() {
  absl::erase_if(partial_,
                 [this](const auto& entry) { return entry.first + num_blocks_ < next_block_; });
}

void FollowPosition::Describe(proto::FollowRequest* request) {
  Prune();
  if (partial_.size() > kMaxPartialBlocks) Reset();
  request->set_next_block(at_the_beginning() ? 0 : next_block_);
  request->clear_partial();
  for (const auto& [block, partial] : partial_) {
    proto::BlockPosition* position = request->add_partial();
    position->set_block(block);
    position->set_rows(partial.rows);
  }
}

}  // namespace troupe
