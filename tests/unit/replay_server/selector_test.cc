// What every selector promises, and the order of those that have one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <tuple>

#include "replay_server/selectors/interface.h"
#include "tests/unit/replay_server/selector_model.h"

namespace troupe {
namespace {

using testing::ElementsAre;

std::string Name(const testing::TestParamInfo<std::tuple<SelectorCase, uint32_t>>& info) {
  const auto& [c, num_blocks] = info.param;
  return c.name + "Of" + std::to_string(num_blocks) + "Blocks";
}

std::array<float, 64> AllOf(float priority) {
  std::array<float, 64> priorities;
  priorities.fill(priority);
  return priorities;
}

class SelectorTest : public testing::TestWithParam<std::tuple<SelectorCase, uint32_t>> {
 protected:
  uint64_t RandomMask() { return random_() & (random_() % 4 == 0 ? ~uint64_t{0} : random_()); }

  // Few enough values that many are equal, and some 0.
  float RandomPriority() {
    return random_() % 2 == 0 ? static_cast<float>(random_() % 4)
                              : static_cast<float>(random_() % 100000) / 777;
  }

  void AddSome() {
    const uint32_t block = random_() % num_blocks_;
    std::array<float, 64> priorities;
    for (float& priority : priorities) priority = RandomPriority();
    both_.Add(block, RandomMask() & ~both_.Mask(block), priorities);
  }

  void RemoveSome() {
    const uint32_t block = random_() % num_blocks_;
    both_.Remove(block, random_() % 3 == 0 ? ~uint64_t{0} : RandomMask());
  }

  // Of windows that are there, some of them twice.
  void SetSomePriorities() {
    std::vector<PriorityChange> changes;
    while (changes.size() < random_() % 40) {
      auto window = both_.model().lower_bound({random_() % num_blocks_, random_() % 64});
      if (window == both_.model().end()) break;
      changes.push_back({window->first.first, window->first.second, RandomPriority()});
      if (random_() % 8 == 0) changes.push_back(changes[random_() % changes.size()]);
      changes.back().priority = RandomPriority();
    }
    both_.SetPriorities(changes);
  }

  void ChangeSomething() {
    const uint64_t what = random_() % 8;
    if (what < 4) AddSome();
    if (what == 4 || what == 5) RemoveSome();
    if (what > 5) SetSomePriorities();
  }

  void CheckCounts() {
    for (uint32_t block = 0; block < num_blocks_; ++block) {
      ASSERT_EQ(selector_.Mask(block), both_.Mask(block)) << "block " << block;
    }
    ASSERT_NEAR(selector_.Mass(), both_.Mass(), 1e-6 * both_.Mass());
    ASSERT_EQ(selector_.MaxBatch(), both_.MaxBatch());
  }

  void CheckDraws(int64_t n) {
    const double mass = both_.Mass();
    const std::vector<Selection> selections = Select(selector_, n, random_);
    ASSERT_EQ(selections.size(), static_cast<size_t>(n));
    for (const auto& [block, slot, probability] : selections) {
      const auto window = both_.model().find({block, slot});
      ASSERT_NE(window, both_.model().end()) << block << " " << slot << " is not there";
      const double weight = case_.weight(window->second.priority);
      ASSERT_GT(weight, 0);
      ASSERT_NEAR(probability, weight / mass, 1e-6 * weight / mass);
    }
  }

  void CheckSelected(int64_t n) {
    n = std::min(n, selector_.MaxBatch());
    if (!case_.before) {
      CheckDraws(n);
      return;
    }
    const std::vector<Selection> selections = Select(selector_, n, random_);
    ASSERT_EQ(Windows(selections), both_.First(n));
    for (const Selection& selection : selections) ASSERT_EQ(selection.probability, 1);
  }

  const SelectorCase case_ = std::get<0>(GetParam());
  const uint32_t num_blocks_ = std::get<1>(GetParam());
  std::mt19937_64 random_{1};
  ModelledSelector both_{case_, num_blocks_};
  Selector& selector_ = both_.selector();
};

// Trees of 2, 3 and 4 levels, the upper ones not full.
INSTANTIATE_TEST_SUITE_P(All, SelectorTest,
                         testing::Combine(testing::ValuesIn(AllSelectors()),
                                          testing::Values(1, 5, 70)),
                         Name);

TEST_P(SelectorTest, NothingCanBeSelectedFromNothing) {
  CheckCounts();
  both_.Add(0, 0b100, AllOf(1));
  both_.Remove(0, 0b100);
  CheckCounts();
  EXPECT_EQ(selector_.MaxBatch(), 0);
  EXPECT_EQ(selector_.Mass(), 0);
  EXPECT_THAT(Select(selector_, 0, random_), testing::IsEmpty());
}

TEST_P(SelectorTest, TheOnlyWindowIsSelectedWhereverItIs) {
  for (const Window& window :
       {Window{0, 0}, Window{0, 17}, Window{num_blocks_ - 1, 0}, Window{num_blocks_ - 1, 63}}) {
    both_.Add(window.first, uint64_t{1} << window.second, AllOf(0.3f));
    EXPECT_EQ(Windows(Select(selector_, 1, random_)), std::vector<Window>{window});
    CheckCounts();
    both_.Remove(window.first, uint64_t{1} << window.second);
  }
}

TEST_P(SelectorTest, RemovingWhatIsNotThereChangesNothing) {
  both_.Add(0, 0b100, AllOf(1));
  both_.Remove(0, ~uint64_t{0b100});
  both_.Remove(num_blocks_ - 1, ~uint64_t{0b100});
  CheckCounts();
  EXPECT_EQ(Windows(Select(selector_, 1, random_)), (std::vector<Window>{{0, 2}}));
}

TEST_P(SelectorTest, SelectionsAreAppendedToWhatIsThere) {
  both_.Add(0, 0b100, AllOf(1));
  std::vector<Selection> selections = {{7, 8, 0.5f}};
  selector_.Select(1, random_, &selections);
  EXPECT_EQ(Windows(selections), (std::vector<Window>{{7, 8}, {0, 2}}));
}

TEST_P(SelectorTest, SaysWhetherItUsesPriorities) {
  EXPECT_EQ(selector_.UsesPriorities(), case_.uses_priorities);
}

TEST_P(SelectorTest, SelectingRemovesNothing) {
  both_.Add(0, ~uint64_t{0}, AllOf(2));
  for (int i = 0; i < 3; ++i) {
    CheckSelected(64);
    CheckCounts();
  }
}

TEST_P(SelectorTest, BehavesAsItsModelOverRandomChanges) {
  for (int step = 0; step < 3000; ++step) {
    ASSERT_NO_FATAL_FAILURE(ChangeSomething()) << "step " << step;
    if (step % 8 == 0) {
      ASSERT_NO_FATAL_FAILURE(CheckCounts()) << "step " << step;
    }
    const int64_t most = step % 100 == 0 ? 100000 : 5;
    ASSERT_NO_FATAL_FAILURE(CheckSelected(case_.before || step % 4 == 0 ? most : 0))
        << "step " << step;
  }
}

TEST_P(SelectorTest, WorksThroughManyRoundsOfARing) {
  for (uint32_t step = 0; step < 4 * num_blocks_ + 100; ++step) {
    const uint32_t block = step % num_blocks_;
    both_.Remove(block, ~uint64_t{0});
    std::array<float, 64> priorities;
    for (float& priority : priorities) priority = RandomPriority();
    for (uint32_t slot = 0; slot < 64; slot += 8)
      both_.Add(block, uint64_t{0xff} << slot, priorities);
    ASSERT_NO_FATAL_FAILURE(CheckSelected(20)) << "step " << step;
  }
  CheckCounts();
}

constexpr uint32_t kNumBlocks = 40;

std::vector<Window> All(Selector& selector) {
  std::mt19937_64 random(1);
  return Windows(Select(selector, selector.MaxBatch(), random));
}

TEST(FifoSelectorTest, TheOldestComeFirstEachOnce) {
  const auto selector = NewFifoSelector(kNumBlocks);
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b10, {});
  selector->Add(5, 0b100, {});
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 0}, Window{5, 1}, Window{2, 1}, Window{5, 2}));
}

TEST(FifoSelectorTest, AWindowThatComesAgainTakesItsNewPlace) {
  const auto selector = NewFifoSelector(kNumBlocks);
  selector->Add(1, 0b1, {});
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b1, {});
  selector->Remove(5, 0b10);  // one of the block's windows
  selector->Add(5, 0b10, {});
  selector->Remove(1, 0b1);  // all of the block's windows
  selector->Add(1, 0b1, {});
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 0}, Window{2, 0}, Window{5, 1}, Window{1, 0}));
}

TEST(FifoSelectorTest, ALowerSlotThatComesLaterIsNewer) {
  const auto selector = NewFifoSelector(kNumBlocks);
  selector->Add(5, 0b100, {});
  selector->Add(5, 0b011, {});
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 2}, Window{5, 0}, Window{5, 1}));
}

TEST(LifoSelectorTest, TheNewestComeFirstEachOnce) {
  const auto selector = NewLifoSelector(kNumBlocks);
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b10, {});
  selector->Add(5, 0b100, {});
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 2}, Window{2, 1}, Window{5, 1}, Window{5, 0}));
}

TEST(LifoSelectorTest, TheNewestButOneFollowsARemovedNewest) {
  const auto selector = NewLifoSelector(kNumBlocks);
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b10, {});
  selector->Remove(2, 0b10);
  selector->Remove(5, 0b10);
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 0}));
  selector->Add(5, 0b10, {});
  EXPECT_THAT(All(*selector), ElementsAre(Window{5, 1}, Window{5, 0}));
}

std::unique_ptr<Selector> WithPriorities(std::unique_ptr<Selector> selector) {
  std::array<float, 64> priorities = {3, 1, 2, 3, 0};
  selector->Add(39, 0b11111, priorities);
  selector->Add(7, 0b00001, priorities);
  return selector;
}

TEST(MaxHeapSelectorTest, TheLargestComeFirstAmongEqualOnesTheLowerPlace) {
  const auto selector = WithPriorities(NewMaxHeapSelector(kNumBlocks));
  EXPECT_THAT(All(*selector), ElementsAre(Window{7, 0}, Window{39, 0}, Window{39, 3}, Window{39, 2},
                                          Window{39, 1}, Window{39, 4}));
}

TEST(MinHeapSelectorTest, TheSmallestComeFirstAmongEqualOnesTheLowerPlace) {
  const auto selector = WithPriorities(NewMinHeapSelector(kNumBlocks));
  EXPECT_THAT(All(*selector), ElementsAre(Window{39, 4}, Window{39, 1}, Window{39, 2}, Window{7, 0},
                                          Window{39, 0}, Window{39, 3}));
}

TEST(MaxHeapSelectorTest, ANewPriorityMovesAWindow) {
  const auto selector = WithPriorities(NewMaxHeapSelector(kNumBlocks));
  selector->SetPriorities({{39, 4, 9}, {7, 0, 5}, {7, 0, 0.5f}});
  EXPECT_THAT(All(*selector), ElementsAre(Window{39, 4}, Window{39, 0}, Window{39, 3},
                                          Window{39, 2}, Window{39, 1}, Window{7, 0}));
}

}  // namespace
}  // namespace troupe
