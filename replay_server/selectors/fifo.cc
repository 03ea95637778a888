#include <algorithm>
#include <bit>
#include <deque>

#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

// A queue of what Add() was given.  Removed windows leave their entry behind; it is skipped, and
// dropped when it reaches the front or when such entries outnumber the others.
class FifoSelector final : public Selector {
 public:
  explicit FifoSelector(uint32_t num_blocks) : blocks_(num_blocks) {}

  void Add(uint32_t block, uint64_t mask, absl::Span<const float>) override {
    Block& state = blocks_[block];
    // A bit that was removed and comes again must not take its old place in the queue.
    if (state.windows == 0) {
      state.epoch++;
      state.removed = 0;
    } else if ((state.removed & mask) != 0) {
      DropRemoved();
    }
    state.windows |= mask;
    num_windows_ += std::popcount(mask);
    queue_.push_back({block, state.epoch, mask});
  }

  void Remove(uint32_t block, uint64_t mask) override {
    Block& state = blocks_[block];
    num_windows_ -= std::popcount(state.windows & mask);
    state.removed |= state.windows & mask;
    state.windows &= ~mask;
    while (!queue_.empty() && Live(queue_.front()) == 0) queue_.pop_front();
    if (queue_.size() > 2 * static_cast<uint64_t>(num_windows_) + 1024) DropRemoved();
  }

  uint64_t Mask(uint32_t block) const override { return blocks_[block].windows; }
  double Mass() const override { return static_cast<double>(num_windows_); }
  int64_t MaxBatch() const override { return num_windows_; }

  void Select(int64_t n, absl::BitGenRef random, std::vector<Selection>* out) override {
    for (auto entry = queue_.begin(); n > 0; ++entry) {
      for (uint64_t rest = Live(*entry); rest != 0 && n > 0; rest &= rest - 1, --n) {
        out->push_back({entry->block, static_cast<uint32_t>(std::countr_zero(rest)), 1.0f});
      }
    }
  }

 private:
  struct Block {
    uint64_t windows = 0;
    uint64_t removed = 0;  // windows that entries of this epoch still name
    uint32_t epoch = 0;    // entries of an earlier one name nothing
  };
  struct Entry {
    uint32_t block;
    uint32_t epoch;
    uint64_t mask;
  };

  uint64_t Live(const Entry& entry) const {
    const Block& state = blocks_[entry.block];
    return entry.epoch == state.epoch ? entry.mask & state.windows : 0;
  }

  void DropRemoved() {
    for (Entry& entry : queue_) entry.mask = Live(entry);
    std::erase_if(queue_, [](const Entry& entry) { return entry.mask == 0; });
    for (Block& state : blocks_) state.removed = 0;
  }

  std::vector<Block> blocks_;
  std::deque<Entry> queue_;  // the windows of an entry are of one block: older means a lower bit
  int64_t num_windows_ = 0;
};

}  // namespace

std::unique_ptr<Selector> NewFifoSelector(uint32_t num_blocks) {
  return std::make_unique<FifoSelector>(num_blocks);
}

}  // namespace troupe
