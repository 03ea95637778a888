#ifndef TROUPE_TESTS_UNIT_REPLAY_SERVER_SELECTOR_MODEL_H_
#define TROUPE_TESTS_UNIT_REPLAY_SERVER_SELECTOR_MODEL_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "replay_server/selectors/interface.h"

namespace troupe {

using Window = std::pair<uint32_t, uint32_t>;  // block, slot

inline std::vector<Window> Windows(const std::vector<Selection>& selections) {
  std::vector<Window> windows;
  for (const Selection& selection : selections)
    windows.emplace_back(selection.block, selection.slot);
  return windows;
}

inline std::vector<Selection> Select(Selector& selector, int64_t n, absl::BitGenRef random) {
  std::vector<Selection> selections;
  selector.Select(n, random, &selections);
  return selections;
}

// What a model remembers of a window.
struct ModelWindow {
  Window window;
  float priority = 0;
  uint64_t number = 0;  // how many were added before it
};

// One way to make a selector, and what it must do in terms of the model.
struct SelectorCase {
  std::string name;
  std::function<std::unique_ptr<Selector>(uint32_t num_blocks)> make;
  bool uses_priorities = false;
  std::function<double(float priority)> weight = [](float) { return 1.0; };
  // Which comes first?  Not set: windows are drawn with probability weight / mass.
  std::function<bool(const ModelWindow&, const ModelWindow&)> before;
};

inline std::ostream& operator<<(std::ostream& out, const SelectorCase& c) { return out << c.name; }

inline SelectorCase PrioritizedCase(const std::string& name, double exponent) {
  return {.name = name,
          .make = [exponent](uint32_t blocks) { return NewPrioritizedSelector(blocks, exponent); },
          .uses_priorities = true,
          .weight = [exponent](float p) { return p > 0 ? std::pow(double{p}, exponent) : 0.0; }};
}

inline SelectorCase HeapCase(const std::string& name, decltype(SelectorCase::make) make,
                             float sign) {
  auto before = [sign](const ModelWindow& a, const ModelWindow& b) {
    return a.priority == b.priority ? a.window < b.window : sign * a.priority > sign * b.priority;
  };
  return {.name = name, .make = std::move(make), .uses_priorities = true, .before = before};
}

// Every selector there is.
inline std::vector<SelectorCase> AllSelectors() {
  auto older = [](const ModelWindow& a, const ModelWindow& b) { return a.number < b.number; };
  auto newer = [](const ModelWindow& a, const ModelWindow& b) { return a.number > b.number; };
  return {{.name = "Uniform", .make = NewUniformSelector},
          {.name = "Fifo", .make = NewFifoSelector, .before = older},
          {.name = "Lifo", .make = NewLifoSelector, .before = newer},
          PrioritizedCase("PrioritizedBy0", 0),
          PrioritizedCase("PrioritizedByHalf", 0.5),
          PrioritizedCase("PrioritizedBy06", 0.6),
          PrioritizedCase("PrioritizedBy1", 1),
          HeapCase("MaxHeap", NewMaxHeapSelector, 1),
          HeapCase("MinHeap", NewMinHeapSelector, -1)};
}

// A selector and its model, changed together.
class ModelledSelector final {
 public:
  ModelledSelector(const SelectorCase& c, uint32_t num_blocks)
      : case_(c), selector_(c.make(num_blocks)) {}

  Selector& selector() { return *selector_; }
  const std::map<Window, ModelWindow>& model() const { return model_; }

  void Add(uint32_t block, uint64_t mask, const std::array<float, 64>& priorities) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      const auto slot = static_cast<uint32_t>(std::countr_zero(rest));
      model_[{block, slot}] = {{block, slot}, priorities[slot], num_added_++};
    }
    selector_->Add(block, mask, case_.uses_priorities ? priorities : absl::Span<const float>());
  }

  void Remove(uint32_t block, uint64_t mask) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      model_.erase({block, static_cast<uint32_t>(std::countr_zero(rest))});
    }
    selector_->Remove(block, mask);
  }

  void SetPriorities(const std::vector<PriorityChange>& changes) {
    if (!case_.uses_priorities) return;
    for (const auto& [block, slot, priority] : changes)
      model_.at({block, slot}).priority = priority;
    selector_->SetPriorities(changes);
  }

  uint64_t Mask(uint32_t block) const {
    uint64_t mask = 0;
    for (auto w = model_.lower_bound({block, 0}); w != model_.end() && w->first.first == block; ++w)
      mask |= uint64_t{1} << w->first.second;
    return mask;
  }

  double Mass() const {
    double mass = 0;
    for (const auto& [window, state] : model_) mass += case_.weight(state.priority);
    return mass;
  }

  int64_t MaxBatch() const {
    if (case_.before) return static_cast<int64_t>(model_.size());
    return Mass() > 0 ? std::numeric_limits<int64_t>::max() : 0;
  }

  // REQUIRES: the case has an order.
  std::vector<Window> First(int64_t n) const {
    std::vector<ModelWindow> sorted;
    for (const auto& [window, state] : model_) sorted.push_back(state);
    std::partial_sort(sorted.begin(), sorted.begin() + n, sorted.end(), case_.before);
    std::vector<Window> windows;
    for (int64_t i = 0; i < n; ++i) windows.push_back(sorted[i].window);
    return windows;
  }

 private:
  const SelectorCase case_;
  std::map<Window, ModelWindow> model_;
  uint64_t num_added_ = 0;
  const std::unique_ptr<Selector> selector_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLAY_SERVER_SELECTOR_MODEL_H_
