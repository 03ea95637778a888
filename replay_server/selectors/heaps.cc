#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "replay_server/selectors/interface.h"
#include "replay_server/selectors/priority_tree.h"

namespace troupe {
namespace {

struct Largest {
  static constexpr float kEmpty = -std::numeric_limits<float>::infinity();

  static float Combine(const TreeNode& node) {
    // Four side by side: the compiler compares them as one vector.
    std::array<float, 4> best;
    for (uint32_t i = 0; i < 4; ++i) {
      best[i] = std::max(std::max(node.values[i], node.values[i + 4]),
                         std::max(node.values[i + 8], node.values[i + 12]));
    }
    return std::max(std::max(best[0], best[1]), std::max(best[2], best[3]));
  }
};

// A knock-out tournament: every node knows the best of each child.  The min-heap is the max-heap
// of the negative priorities.
class HeapSelector final : public Selector {
 public:
  // `sign`: 1 for the largest first, -1 for the smallest.
  HeapSelector(uint32_t num_blocks, float sign)
      : sign_(sign), masks_(num_blocks, 0), tree_(uint64_t{num_blocks} * 64) {}

  void Add(uint32_t block, uint64_t mask, absl::Span<const float> priorities) override {
    masks_[block] |= mask;
    num_windows_ += std::popcount(mask);
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      const int slot = std::countr_zero(rest);
      tree_.Set(uint64_t{block} * 64 + slot, sign_ * priorities[slot]);
    }
    tree_.Update();
  }

  void Remove(uint32_t block, uint64_t mask) override {
    mask &= masks_[block];
    masks_[block] &= ~mask;
    num_windows_ -= std::popcount(mask);
    for (; mask != 0; mask &= mask - 1) {
      tree_.Set(uint64_t{block} * 64 + std::countr_zero(mask), Largest::kEmpty);
    }
    tree_.Update();
  }

  void SetPriorities(absl::Span<const PriorityChange> changes) override {
    for (const PriorityChange& change : changes) {
      tree_.Prefetch(uint64_t{change.block} * 64 + change.slot);
    }
    for (const PriorityChange& change : changes) {
      tree_.Set(uint64_t{change.block} * 64 + change.slot, sign_ * change.priority);
    }
    tree_.Update();
  }

  bool UsesPriorities() const override { return true; }
  uint64_t Mask(uint32_t block) const override { return masks_[block]; }
  double Mass() const override { return static_cast<double>(num_windows_); }
  int64_t MaxBatch() const override { return num_windows_; }

  // Takes the best out n times, and puts them back.
  void Select(int64_t n, absl::BitGenRef, std::vector<Selection>* out) override {
    std::vector<std::pair<uint64_t, float>> taken;  // place, value
    for (; n > 0; --n) {
      const uint64_t place = Best();
      out->push_back({static_cast<uint32_t>(place / 64), static_cast<uint32_t>(place % 64), 1.0f});
      taken.emplace_back(place, tree_.value(place));
      tree_.Set(place, Largest::kEmpty);
      tree_.Update();
    }
    for (const auto& [place, value] : taken) tree_.Set(place, value);
    tree_.Update();
  }

 private:
  // The lowest of the best places.
  uint64_t Best() const {
    const float best = Largest::Combine(tree_.root());
    uint64_t index = 0;
    for (size_t level = tree_.num_levels(); level-- > 0;) {
      const auto& values = tree_.node(level, index).values;
      const auto child = std::find(values.begin(), values.end(), best) - values.begin();
      index = index * TreeNode::kChildren + child;
    }
    return index;
  }

  const float sign_;
  std::vector<uint64_t> masks_;
  int64_t num_windows_ = 0;
  PriorityTree<Largest> tree_;
};

}  // namespace

std::unique_ptr<Selector> NewMaxHeapSelector(uint32_t num_blocks) {
  return std::make_unique<HeapSelector>(num_blocks, 1.0f);
}

std::unique_ptr<Selector> NewMinHeapSelector(uint32_t num_blocks) {
  return std::make_unique<HeapSelector>(num_blocks, -1.0f);
}

}  // namespace troupe
