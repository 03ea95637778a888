#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

using Window = std::pair<uint32_t, uint32_t>;  // block, slot

constexpr uint32_t kNumBlocks = 40;

std::vector<Window> Windows(const std::vector<Selection>& selections) {
  std::vector<Window> windows;
  for (const Selection& selection : selections)
    windows.emplace_back(selection.block, selection.slot);
  return windows;
}

struct Uniform {
  static std::unique_ptr<Selector> Make() { return NewUniformSelector(kNumBlocks); }
};
struct Fifo {
  static std::unique_ptr<Selector> Make() { return NewFifoSelector(kNumBlocks); }
};

// What every selector promises.
template <typename Kind>
class SelectorTest : public ::testing::Test {
 protected:
  std::vector<Window> Select(int64_t n) {
    std::vector<Selection> selections;
    selector_->Select(n, random_, &selections);
    return Windows(selections);
  }

  std::mt19937_64 random_{1};
  std::unique_ptr<Selector> selector_ = Kind::Make();
};

using Kinds = ::testing::Types<Uniform, Fifo>;
TYPED_TEST_SUITE(SelectorTest, Kinds);

TYPED_TEST(SelectorTest, NothingCanBeSelectedFromNothing) {
  EXPECT_EQ(this->selector_->MaxBatch(), 0);
  EXPECT_EQ(this->selector_->Mass(), 0);
  this->selector_->Add(3, 0b100, {});
  this->selector_->Remove(3, 0b100);
  EXPECT_EQ(this->selector_->MaxBatch(), 0);
}

TYPED_TEST(SelectorTest, TheOnlyWindowIsSelected) {
  this->selector_->Add(3, 0b100, {});
  EXPECT_EQ(this->Select(1), (std::vector<Window>{{3, 2}}));
  EXPECT_EQ(this->selector_->Mass(), 1);
  EXPECT_EQ(this->selector_->Mask(3), 0b100u);
}

TYPED_TEST(SelectorTest, RemovingWhatIsNotThereChangesNothing) {
  this->selector_->Add(3, 0b100, {});
  this->selector_->Remove(3, 0b011);
  this->selector_->Remove(4, ~uint64_t{0});
  EXPECT_EQ(this->selector_->Mass(), 1);
  EXPECT_EQ(this->selector_->Mask(3), 0b100u);
}

TYPED_TEST(SelectorTest, SelectsOnlyWhatIsThereOverRandomChanges) {
  std::set<Window> there;
  for (int step = 0; step < 5000; ++step) {
    const auto block = static_cast<uint32_t>(this->random_() % kNumBlocks);
    const uint64_t mask = this->random_() & this->random_() & this->random_();
    const uint64_t held = this->selector_->Mask(block);
    if (this->random_() % 2 == 0) {
      this->selector_->Add(block, mask & ~held, {});
      for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
        there.emplace(block, std::countr_zero(rest));
      }
    } else {
      this->selector_->Remove(block, mask);
      for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
        there.erase({block, std::countr_zero(rest)});
      }
    }
    ASSERT_EQ(this->selector_->Mass(), there.size());
    const auto n = std::min<int64_t>(this->selector_->MaxBatch(), 5);
    for (const Window& window : this->Select(n)) ASSERT_TRUE(there.contains(window));
  }
}

class UniformSelectorTest : public ::testing::TestWithParam<int> {};

TEST_P(UniformSelectorTest, EveryWindowComesEquallyOften) {
  std::mt19937_64 random(7);
  std::unique_ptr<Selector> selector = NewUniformSelector(1 << 16);
  std::map<Window, int64_t> counts;
  for (int i = 0; i < GetParam(); ++i) {
    const auto block = static_cast<uint32_t>(i * 31 % (1 << 16));
    const uint32_t slot = i % 64;
    if ((selector->Mask(block) >> slot & 1) != 0) continue;
    selector->Add(block, uint64_t{1} << slot, {});
    counts[{block, slot}] = 0;
  }
  const auto num_windows = static_cast<double>(counts.size());
  std::vector<Selection> selections;
  selector->Select(static_cast<int64_t>(num_windows) * 200, random, &selections);
  for (const Selection& selection : selections) {
    EXPECT_FLOAT_EQ(selection.probability, static_cast<float>(1 / num_windows));
    counts.at({selection.block, selection.slot})++;
  }
  double chi_squared = 0;
  for (const auto& [window, count] : counts) {
    chi_squared += (static_cast<double>(count) - 200) * (static_cast<double>(count) - 200) / 200;
  }
  const double freedom = num_windows - 1;
  EXPECT_LT(chi_squared, freedom + 4 * std::sqrt(2 * freedom));
  EXPECT_GT(chi_squared, freedom - 4 * std::sqrt(2 * freedom));
}

// Few windows among many places take another path than many.
INSTANTIATE_TEST_SUITE_P(FewAndMany, UniformSelectorTest, testing::Values(100, 8000));

TEST(FifoSelectorTest, TheOldestComeFirstEachOnce) {
  std::mt19937_64 random(1);
  std::unique_ptr<Selector> selector = NewFifoSelector(kNumBlocks);
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b10, {});
  selector->Add(5, 0b100, {});
  EXPECT_EQ(selector->MaxBatch(), 4);
  std::vector<Selection> selections;
  selector->Select(4, random, &selections);
  EXPECT_EQ(Windows(selections), (std::vector<Window>{{5, 0}, {5, 1}, {2, 1}, {5, 2}}));
}

TEST(FifoSelectorTest, AWindowThatComesAgainTakesItsNewPlace) {
  std::mt19937_64 random(1);
  std::unique_ptr<Selector> selector = NewFifoSelector(kNumBlocks);
  selector->Add(1, 0b1, {});
  selector->Add(5, 0b11, {});
  selector->Add(2, 0b1, {});
  selector->Remove(5, 0b10);  // one of the block's windows
  selector->Add(5, 0b10, {});
  selector->Remove(1, 0b1);  // all of the block's windows
  selector->Add(1, 0b1, {});
  std::vector<Selection> selections;
  selector->Select(4, random, &selections);
  EXPECT_EQ(Windows(selections), (std::vector<Window>{{5, 0}, {2, 0}, {5, 1}, {1, 0}}));
}

}  // namespace
}  // namespace troupe
