#include <algorithm>
#include <bit>
#include <deque>

#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

// A queue of what Add() was given, for both orders.  Removed windows leave their entry behind; it
// is skipped, and dropped when it reaches an end or when such entries outnumber the others.
class QueueSelector final : public Selector {
 public:
  enum class Order { kOldestFirst, kNewestFirst };

  QueueSelector(uint32_t num_blocks, Order order) : order_(order), blocks_(num_blocks) {}

  void Add(uint32_t block, uint64_t mask, absl::Span<const float>) override {
    if (mask == 0) return;
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
    if (ContinuesNewest(block, mask)) {
      queue_.back().mask |= mask;
    } else {
      queue_.push_back({block, state.epoch, mask});
    }
  }

  void Remove(uint32_t block, uint64_t mask) override {
    Block& state = blocks_[block];
    num_windows_ -= std::popcount(state.windows & mask);
    state.removed |= state.windows & mask;
    state.windows &= ~mask;
    while (!queue_.empty() && Live(queue_.front()) == 0) queue_.pop_front();
    while (!queue_.empty() && Live(queue_.back()) == 0) queue_.pop_back();
    if (queue_.size() > 2 * static_cast<uint64_t>(num_windows_) + 1024) DropRemoved();
  }

  uint64_t Mask(uint32_t block) const override { return blocks_[block].windows; }
  double Mass() const override { return static_cast<double>(num_windows_); }
  int64_t MaxBatch() const override { return num_windows_; }

  void Select(int64_t n, absl::BitGenRef, std::vector<Selection>* out) override {
    if (order_ == Order::kOldestFirst) {
      for (auto entry = queue_.begin(); n > 0; ++entry) {
        for (uint64_t rest = Live(*entry); rest != 0 && n > 0; rest &= rest - 1, --n) {
          out->push_back({entry->block, static_cast<uint32_t>(std::countr_zero(rest)), 1.0f});
        }
      }
    } else {
      for (auto entry = queue_.rbegin(); n > 0; ++entry) {
        for (uint64_t rest = Live(*entry); rest != 0 && n > 0; --n) {
          const auto slot = static_cast<uint32_t>(std::bit_width(rest) - 1);
          out->push_back({entry->block, slot, 1.0f});
          rest &= ~(uint64_t{1} << slot);
        }
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

  // May the newest entry take these windows of the block too?
  bool ContinuesNewest(uint32_t block, uint64_t mask) const {
    if (queue_.empty() || queue_.back().block != block) return false;
    return queue_.back().epoch == blocks_[block].epoch && queue_.back().mask < (mask & -mask);
  }

  void DropRemoved() {
    for (Entry& entry : queue_) entry.mask = Live(entry);
    std::erase_if(queue_, [](const Entry& entry) { return entry.mask == 0; });
    for (Block& state : blocks_) state.removed = 0;
  }

  const Order order_;
  std::vector<Block> blocks_;
  std::deque<Entry> queue_;  // the windows of an entry are of one block: older means a lower bit
  int64_t num_windows_ = 0;
};

}  // namespace

std::unique_ptr<Selector> NewFifoSelector(uint32_t num_blocks) {
  return std::make_unique<QueueSelector>(num_blocks, QueueSelector::Order::kOldestFirst);
}

std::unique_ptr<Selector> NewLifoSelector(uint32_t num_blocks) {
  return std::make_unique<QueueSelector>(num_blocks, QueueSelector::Order::kNewestFirst);
}

}  // namespace troupe
