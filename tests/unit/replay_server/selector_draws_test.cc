// How often the selectors that draw at random draw what.  Seeds are fixed, so a test that passes
// passes again; the limits are those of one false alarm in 1e8 seeds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "replay_server/selectors/interface.h"
#include "tests/unit/replay_server/selector_model.h"

namespace troupe {
namespace {

constexpr double kMostDeviations = 6;

// How many standard deviations the chi-squared statistic of the counts lies off its mean, by the
// cube root of Wilson and Hilferty.  Infinite if a cell of weight 0 was hit.
double Deviation(const std::vector<int64_t>& counts, const std::vector<double>& weights) {
  double num_draws = 0, mass = 0, chi_squared = 0, freedom = -1;
  for (const int64_t count : counts) num_draws += static_cast<double>(count);
  for (const double weight : weights) mass += weight;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (weights[i] == 0 && counts[i] == 0) continue;
    const double expected = num_draws * weights[i] / mass;
    const double off = static_cast<double>(counts[i]) - expected;
    chi_squared += off * off / expected;
    freedom++;
  }
  const double spread = 2 / (9 * freedom);
  return (std::cbrt(chi_squared / freedom) - (1 - spread)) / std::sqrt(spread);
}

// By place.  Batches are of a usual size: the uniform selector looks at it.
std::vector<int64_t> Counts(Selector& selector, uint32_t num_blocks, int64_t num_batches) {
  constexpr int64_t kBatch = 400;
  std::mt19937_64 random(7);
  std::vector<int64_t> counts(size_t{num_blocks} * 64, 0);
  for (; num_batches > 0; --num_batches) {
    for (const Selection& selection : Select(selector, kBatch, random)) {
      counts[selection.block * 64 + selection.slot]++;
    }
  }
  return counts;
}

struct UniformCase {
  std::string name;
  int num_windows;
};

class UniformSelectorTest : public testing::TestWithParam<UniformCase> {};

// Few windows among many places take another path than many.
INSTANTIATE_TEST_SUITE_P(FewAndMany, UniformSelectorTest,
                         testing::Values(UniformCase{"Few", 100}, UniformCase{"Many", 8000}),
                         [](const auto& info) { return info.param.name; });

TEST_P(UniformSelectorTest, EveryWindowComesEquallyOften) {
  constexpr uint32_t kNumBlocks = 1 << 12;
  const auto selector = NewUniformSelector(kNumBlocks);
  std::vector<double> weights(kNumBlocks * 64, 0);
  for (int i = 0; i < GetParam().num_windows; ++i) {
    const uint32_t block = i * 31 % kNumBlocks, slot = i % 64;
    if ((selector->Mask(block) >> slot & 1) == 0) selector->Add(block, uint64_t{1} << slot, {});
    weights[block * 64 + slot] = 1;
  }
  std::vector<int64_t> counts = Counts(*selector, kNumBlocks, GetParam().num_windows / 2);
  EXPECT_LT(std::abs(Deviation(counts, weights)), kMostDeviations);
  for (size_t place = 0; place < weights.size(); place += 2) weights[place] *= 1.25;
  EXPECT_GT(Deviation(counts, weights), kMostDeviations) << "the test cannot fail";
}

class PrioritizedSelectorTest : public testing::TestWithParam<double> {
 protected:
  static constexpr uint32_t kNumBlocks = 70;  // a tree of 4 levels, the upper ones not full

  double Weight(float priority, double exponent) {
    return priority > 0 ? std::pow(double{priority}, exponent) : 0;
  }

  std::mt19937_64 random_{1};
};

INSTANTIATE_TEST_SUITE_P(Exponents, PrioritizedSelectorTest, testing::Values(0, 0.5, 0.6, 1, 2),
                         [](const auto& info) {
                           return "Times10Is" + std::to_string(static_cast<int>(info.param * 10));
                         });

TEST_P(PrioritizedSelectorTest, WindowsComeAsOftenAsTheirPriorityWants) {
  const double exponent = GetParam();
  const auto selector = NewPrioritizedSelector(kNumBlocks, exponent);
  std::vector<double> weights(kNumBlocks * 64, 0), wrong_weights(kNumBlocks * 64, 0);
  for (uint32_t block = 0; block < kNumBlocks; block += 3) {
    std::array<float, 64> priorities;
    const uint64_t mask = random_();
    for (uint32_t slot = 0; slot < 64; ++slot) {
      priorities[slot] = random_() % 5 == 0 ? 0 : 1 + static_cast<float>(random_() % 900) / 100;
      if ((mask >> slot & 1) == 0) continue;
      weights[block * 64 + slot] = Weight(priorities[slot], exponent);
      wrong_weights[block * 64 + slot] = Weight(priorities[slot], exponent + 0.05);
    }
    selector->Add(block, mask, priorities);
  }
  std::vector<int64_t> counts = Counts(*selector, kNumBlocks, 2500);
  EXPECT_LT(std::abs(Deviation(counts, weights)), kMostDeviations);
  EXPECT_GT(Deviation(counts, wrong_weights), kMostDeviations) << "the test cannot fail";
}

// Sums as large as here leave a float no digits for one window: draws go down in double.
TEST(PrioritizedSelectorDrawsTest, WindowsBesideAHeavyOneComeEquallyOften) {
  constexpr uint32_t kNumBlocks = 1 << 15;
  const auto selector = NewPrioritizedSelector(kNumBlocks, 1);
  std::array<float, 64> priorities;
  priorities.fill(1);
  for (uint32_t block = 1; block < kNumBlocks; ++block) {
    selector->Add(block, ~uint64_t{0}, priorities);
  }
  priorities[0] = 3e7f;
  selector->Add(0, 1, priorities);
  std::mt19937_64 random(7);
  std::vector<int64_t> by_slot(64, 0), by_range(64, 0);
  for (const Selection& selection : Select(*selector, 2'000'000, random)) {
    if (selection.block == 0) continue;
    by_slot[selection.slot]++;
    by_range[selection.block / (kNumBlocks / 64)]++;
  }
  EXPECT_LT(std::abs(Deviation(by_slot, std::vector<double>(64, 1))), kMostDeviations);
  std::vector<double> range_weights(64, 512);
  range_weights[0] = 511;
  EXPECT_LT(std::abs(Deviation(by_range, range_weights)), kMostDeviations);
}

struct Constant {
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() const { return value; }
  uint64_t value;
};

TEST(PrioritizedSelectorDrawsTest, TheLeastAndTheLargestDrawEndAtAWindowOfPositivePriority) {
  constexpr uint32_t kNumBlocks = 5;
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    const auto selector = NewPrioritizedSelector(kNumBlocks, 1);
    std::array<float, 64> priorities;
    for (float& priority : priorities) {
      priority = random() % 2 == 0 ? 0 : std::exp(static_cast<float>(random() % 1000) / 50);
    }
    priorities[10] = 1;
    selector->Add(trial % kNumBlocks, random() | 1 << 10, priorities);
    for (const uint64_t drawn : {uint64_t{0}, ~uint64_t{0}}) {
      Constant bits{drawn};
      const Selection selection = Select(*selector, 1, bits)[0];
      ASSERT_EQ(selection.block, trial % kNumBlocks);
      ASSERT_TRUE(selector->Mask(selection.block) >> selection.slot & 1) << "trial " << trial;
      ASSERT_GT(priorities[selection.slot], 0) << "trial " << trial;
      ASSERT_GT(selection.probability, 0);
    }
  }
}

TEST(PrioritizedSelectorDrawsTest, OnlyWindowsOfPriority0CannotBeSelected) {
  for (const double exponent : {0.0, 0.5, 0.6, 1.0}) {
    const auto selector = NewPrioritizedSelector(3, exponent);
    selector->Add(2, 0b11, std::array<float, 64>{});
    EXPECT_EQ(selector->Mask(2), 0b11u);
    EXPECT_EQ(selector->Mass(), 0);
    EXPECT_EQ(selector->MaxBatch(), 0);
    selector->SetPriorities({{2, 1, 4}});
    EXPECT_GT(selector->MaxBatch(), 0);
    std::mt19937_64 random(1);
    for (const Selection& selection : Select(*selector, 300, random)) {
      EXPECT_EQ(selection.slot, 1u);
      EXPECT_EQ(selection.probability, 1);
    }
  }
}

TEST(PrioritizedSelectorDrawsTest, ExtremePrioritiesKeepTheMassFiniteAndCanBeDrawn) {
  using Limits = std::numeric_limits<float>;
  std::mt19937_64 random(1);
  std::array<float, 64> priorities;
  for (const double exponent : {0.0, 0.3, 0.5, 1.0, 4.0}) {
    for (const float priority : {Limits::denorm_min(), Limits::min(), Limits::max()}) {
      const auto selector = NewPrioritizedSelector(100, exponent);
      priorities.fill(priority);
      for (uint32_t block = 0; block < 100; ++block) selector->Add(block, 3, priorities);
      EXPECT_TRUE(std::isfinite(selector->Mass()));
      for (const Selection& selection : Select(*selector, 100, random)) {
        EXPECT_FLOAT_EQ(selection.probability, 1.0f / 200) << priority << " to the " << exponent;
      }
    }
  }
}

// Sums are made afresh from their parts, so nothing can drift: not even the last bit differs.
TEST(PrioritizedSelectorDrawsTest, AfterAMillionChangesItDrawsWhatAFreshOneDraws) {
  constexpr uint32_t kNumBlocks = 300;
  std::mt19937_64 random(1);
  const auto priority = [&] { return std::exp(static_cast<float>(random() % 40000) / 1000 - 20); };
  const auto selector = NewPrioritizedSelector(kNumBlocks, 0.6);
  std::vector<std::array<float, 64>> priorities(kNumBlocks);
  for (uint32_t block = 0; block < kNumBlocks; ++block) {
    for (float& value : priorities[block]) value = priority();
    selector->Add(block, ~uint64_t{0}, priorities[block]);
  }
  std::vector<PriorityChange> changes(256);
  for (int batch = 0; batch < 4000; ++batch) {
    for (PriorityChange& change : changes) {
      change = {static_cast<uint32_t>(random() % kNumBlocks), static_cast<uint32_t>(random() % 64),
                priority()};
      priorities[change.block][change.slot] = change.priority;
    }
    selector->SetPriorities(changes);
    if (batch % 10 == 0) {
      const uint32_t block = random() % kNumBlocks;
      selector->Remove(block, 0xffff);
      selector->Add(block, 0xffff, priorities[block]);
    }
  }
  const auto fresh = NewPrioritizedSelector(kNumBlocks, 0.6);
  for (uint32_t block = 0; block < kNumBlocks; ++block) {
    fresh->Add(block, ~uint64_t{0}, priorities[block]);
  }
  EXPECT_EQ(selector->Mass(), fresh->Mass());
  std::mt19937_64 one(7), other(7);
  const std::vector<Selection> drawn = Select(*selector, 50000, one);
  const std::vector<Selection> expected = Select(*fresh, 50000, other);
  EXPECT_EQ(Windows(drawn), Windows(expected));
  for (size_t i = 0; i < drawn.size(); ++i) {
    ASSERT_EQ(drawn[i].probability, expected[i].probability);
  }
}

}  // namespace
}  // namespace troupe
