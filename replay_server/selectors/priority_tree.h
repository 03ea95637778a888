#ifndef TROUPE_REPLAY_SERVER_SELECTORS_PRIORITY_TREE_H_
#define TROUPE_REPLAY_SERVER_SELECTORS_PRIORITY_TREE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "replay_server/huge_pages.h"

namespace troupe {

// What a node of the tree knows of its children: one value each, one cache line in all.
struct alignas(64) TreeNode {
  static constexpr uint32_t kChildren = 16;
  std::array<float, kChildren> values;
};

// A value for each place (block * 64 + slot), and over them levels of nodes, each of which has the
// combined value of the 16 below it, up to one root.  A node is always combined afresh from its
// children, never corrected by a difference: rounding errors do not pile up.
//
// `Operation` has
//   static constexpr float kEmpty;                // the value of a place that has no window
//   static float Combine(const TreeNode& node);   // kEmpty if all children are
//
// Not thread-safe.  Memory: 4.3 bytes a place.
template <typename Operation>
class PriorityTree final {
 public:
  // All places are empty.
  explicit PriorityTree(uint64_t num_places) {
    uint64_t num_nodes = num_places;
    do {
      num_nodes = (num_nodes + TreeNode::kChildren - 1) / TreeNode::kChildren;
      levels_.emplace_back(std::max<uint64_t>(num_nodes, 1));
    } while (num_nodes > 1);
  }

  // Level 0 holds the places, the last one the root.
  size_t num_levels() const { return levels_.size(); }
  const TreeNode& root() const { return levels_.back().nodes[0]; }
  // The children of node i are the nodes 16 * i to 16 * i + 15 of the level below.
  const TreeNode& node(size_t level, uint64_t index) const { return levels_[level].nodes[index]; }

  float value(uint64_t place) const {
    return levels_[0].nodes[place / TreeNode::kChildren].values[place % TreeNode::kChildren];
  }

  // Tells the processor to fetch the place, which Set() will want soon.
  void Prefetch(uint64_t place) const {
    __builtin_prefetch(&levels_[0].nodes[place / TreeNode::kChildren], /*write=*/1);
  }

  // The nodes above the place are stale until Update().
  void Set(uint64_t place, float value) {
    const uint64_t index = place / TreeNode::kChildren;
    levels_[0].nodes[index].values[place % TreeNode::kChildren] = value;
    if (levels_[0].MarkIf(true, index) != 0) changed_.push_back(index);
  }

  // Combines every node above a place that was set, once each, level by level.
  void Update() {
    for (size_t i = 0; i + 1 < levels_.size(); ++i) UpdateParents(levels_[i], levels_[i + 1]);
    for (const uint64_t index : changed_) levels_.back().Unmark(index);
    changed_.clear();
  }

 private:
  struct Level {
    explicit Level(uint64_t num_nodes) : nodes(num_nodes), marks((num_nodes + 63) / 64, 0) {
      for (TreeNode& node : nodes) node.values.fill(Operation::kEmpty);
    }

    // Was `condition` true and the node not yet marked?  Without a branch: none could be foretold.
    uint32_t MarkIf(bool condition, uint64_t index) {
      uint64_t& word = marks[index / 64];
      const uint64_t fresh = ~word >> (index % 64) & uint64_t{condition};
      word |= fresh << (index % 64);
      return static_cast<uint32_t>(fresh);
    }
    void Unmark(uint64_t index) { marks[index / 64] &= ~(uint64_t{1} << (index % 64)); }

    std::vector<TreeNode, HugePageAllocator<TreeNode>> nodes;
    std::vector<uint64_t> marks;  // a bit a node: is it in changed_?
  };

  // changed_ names nodes of `level` before and nodes of `above` after.
  void UpdateParents(Level& level, Level& above) {
    size_t num_parents = 0;
    for (size_t i = 0; i < changed_.size(); ++i) {
      const uint64_t index = changed_[i];
      const uint64_t parent = index / TreeNode::kChildren;
      const float combined = Operation::Combine(level.nodes[index]);
      float& known = above.nodes[parent].values[index % TreeNode::kChildren];
      const bool differs = known != combined;
      known = combined;
      level.Unmark(index);
      changed_[num_parents] = parent;
      num_parents += above.MarkIf(differs, parent);
    }
    changed_.resize(num_parents);
  }

  std::vector<Level> levels_;
  std::vector<uint64_t> changed_;  // nodes of one level, each once
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SELECTORS_PRIORITY_TREE_H_
