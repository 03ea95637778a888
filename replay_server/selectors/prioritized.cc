#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "absl/random/random.h"
#include "replay_server/selectors/interface.h"
#include "replay_server/selectors/priority_tree.h"

namespace troupe {
namespace {

// The weight of a window of priority above 0 is kept in this range, so that no power of a priority
// is 0 or infinite, and neither is a sum of fewer than 1e10 weights.
constexpr float kMinWeight = 1e-30f;
constexpr float kMaxWeight = 1e28f;

// priority^exponent
class Weighting final {
 public:
  explicit Weighting(double exponent)
      : exponent_(static_cast<float>(exponent)),
        kind_(exponent == 0     ? Kind::kOne
              : exponent == 0.5 ? Kind::kRoot
              : exponent == 1   ? Kind::kSame
                                : Kind::kPower) {}

  float operator()(float priority) const {
    return priority > 0 ? std::clamp(Power(priority), kMinWeight, kMaxWeight) : 0.0f;
  }

 private:
  enum class Kind { kOne, kRoot, kSame, kPower };

  float Power(float priority) const {
    switch (kind_) {
      case Kind::kOne:
        return 1;
      case Kind::kRoot:
        return std::sqrt(priority);
      case Kind::kSame:
        return priority;
      case Kind::kPower:
        break;
    }
    return std::pow(priority, exponent_);
  }

  const float exponent_;
  const Kind kind_;
};

struct Sum {
  static constexpr float kEmpty = 0;

  static float Combine(const TreeNode& node) {
    // Four sums side by side: the compiler adds them as one vector.
    std::array<float, 4> sums;
    for (uint32_t i = 0; i < 4; ++i) {
      sums[i] = (node.values[i] + node.values[i + 4]) + (node.values[i + 8] + node.values[i + 12]);
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
};

// A tree of sums of weights.  A draw goes down from the root with a number below the mass, taking
// off what it leaves to its left.
class PrioritizedSelector final : public Selector {
 public:
  PrioritizedSelector(uint32_t num_blocks, double exponent)
      : weighting_(exponent), masks_(num_blocks, 0), tree_(uint64_t{num_blocks} * 64) {}

  void Add(uint32_t block, uint64_t mask, absl::Span<const float> priorities) override {
    masks_[block] |= mask;
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      const int slot = std::countr_zero(rest);
      tree_.Set(uint64_t{block} * 64 + slot, weighting_(priorities[slot]));
    }
    tree_.Update();
  }

  void Remove(uint32_t block, uint64_t mask) override {
    mask &= masks_[block];
    masks_[block] &= ~mask;
    for (; mask != 0; mask &= mask - 1) {
      tree_.Set(uint64_t{block} * 64 + std::countr_zero(mask), Sum::kEmpty);
    }
    tree_.Update();
  }

  void SetPriorities(absl::Span<const PriorityChange> changes) override {
    for (const PriorityChange& change : changes) {
      tree_.Prefetch(uint64_t{change.block} * 64 + change.slot);
    }
    for (const PriorityChange& change : changes) {
      tree_.Set(uint64_t{change.block} * 64 + change.slot, weighting_(change.priority));
    }
    tree_.Update();
  }

  bool UsesPriorities() const override { return true; }
  uint64_t Mask(uint32_t block) const override { return masks_[block]; }

  double Mass() const override {
    double mass = 0;
    for (const float sum : tree_.root().values) mass += sum;
    return mass;
  }

  int64_t MaxBatch() const override { return Mass() > 0 ? std::numeric_limits<int64_t>::max() : 0; }

  void Select(int64_t n, absl::BitGenRef random, std::vector<Selection>* out) override {
    const double mass = Mass();
    for (; n > 0; n -= kDrawsAtOnce) {
      SelectSome(std::min(n, kDrawsAtOnce), mass, random, out);
    }
  }

 private:
  // A draw on its way down.
  struct Draw {
    uint64_t node = 0;  // of the level that it has reached
    double residual =
        0;  // what is left of the number drawn: below the node's sum, but for rounding
  };

  static constexpr int64_t kDrawsAtOnce = 256;

  // All draws go down one level before any goes down the next, so that the processor waits for
  // many cache lines at a time instead of for one.
  void SelectSome(int64_t n, double mass, absl::BitGenRef random,
                  std::vector<Selection>* out) const {
    std::array<Draw, kDrawsAtOnce> draws;
    for (int64_t i = 0; i < n; ++i) draws[i] = {0, absl::Uniform<double>(random, 0, mass)};
    for (size_t level = tree_.num_levels(); level-- > 0;) {
      for (int64_t i = 0; i < n; ++i) {
        Descend(tree_.node(level, draws[i].node), &draws[i]);
        if (level > 0) __builtin_prefetch(&tree_.node(level - 1, draws[i].node));
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t place = draws[i].node;
      out->push_back({static_cast<uint32_t>(place / 64), static_cast<uint32_t>(place % 64),
                      static_cast<float>(tree_.value(place) / mass)});
    }
  }

  // 1, and takes the sum off the residual, if that is not below the sum; else 0.  Without a branch:
  // none could be foretold.
  static uint32_t PassBy(double sum, double* residual) {
    const uint64_t passes = *residual >= sum;
    *residual -= std::bit_cast<double>(std::bit_cast<uint64_t>(sum) & -passes);
    return static_cast<uint32_t>(passes);
  }

  // To the child in whose share of the node's sum the residual lies.  The children are halved four
  // times: by bit 0 of their index, by bit 1, and so on, as sums over the other bits are sums of
  // whole vectors.
  static void Descend(const TreeNode& node, Draw* draw) {
    const float* values = node.values.data();
    alignas(64) std::array<double, 8> eighths;
    std::array<double, 4> quarters;
    for (uint32_t i = 0; i < 8; ++i) eighths[i] = double{values[i]} + double{values[i + 8]};
    for (uint32_t i = 0; i < 4; ++i) quarters[i] = eighths[i] + eighths[i + 4];
    double residual = draw->residual;
    uint32_t child = PassBy(quarters[0] + quarters[2], &residual);
    child += PassBy(quarters[child], &residual) * 2;
    child += PassBy(eighths[child], &residual) * 4;
    child += PassBy(values[child], &residual) * 8;
    // Rounding can carry a residual past the end: to the last child that can be drawn.
    if (values[child] == 0) [[unlikely]] {
      for (child = TreeNode::kChildren - 1; values[child] == 0; --child) {
      }
      residual = values[child];
    }
    draw->node = draw->node * TreeNode::kChildren + child;
    draw->residual = residual;
  }

  const Weighting weighting_;
  std::vector<uint64_t> masks_;
  PriorityTree<Sum> tree_;
};

}  // namespace

std::unique_ptr<Selector> NewPrioritizedSelector(uint32_t num_blocks, double exponent) {
  return std::make_unique<PrioritizedSelector>(num_blocks, exponent);
}

}  // namespace troupe
