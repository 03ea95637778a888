#include "common/batch_split.h"

#include <gtest/gtest.h>

#include <numeric>

namespace troupe {
namespace {

TEST(BatchSplit, CountsAddUpToTheBatch) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100; ++i) {
    const std::vector<int64_t> counts = SplitByMass(256, {3, 1e6, 0.5}, random);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 256);
  }
}

TEST(BatchSplit, AShardWithoutMassGetsNothing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::vector<int64_t> counts = SplitByMass(16, {0, 2, 0, 1, 0}, random);
    EXPECT_EQ(counts[0] + counts[2] + counts[4], 0);
  }
}

TEST(BatchSplit, IsMultinomialOverUnevenShards) {
  // Chi-squared of the totals, and the variance of one count against n p (1 - p).
  const std::vector<double> masses = {1, 10, 100, 1000};
  constexpr int64_t kWindows = 256;
  constexpr int64_t kBatches = 20000;
  std::mt19937_64 random(7);
  std::vector<double> totals(masses.size());
  double square_deviation = 0;
  const double p1 = 10.0 / 1111;
  for (int64_t i = 0; i < kBatches; ++i) {
    const std::vector<int64_t> counts = SplitByMass(kWindows, masses, random);
    for (size_t s = 0; s < counts.size(); ++s) totals[s] += static_cast<double>(counts[s]);
    const double deviation = static_cast<double>(counts[1]) - kWindows * p1;
    square_deviation += deviation * deviation;
  }
  double chi_squared = 0;
  for (size_t s = 0; s < masses.size(); ++s) {
    const double expected = kWindows * kBatches * masses[s] / 1111;
    chi_squared += (totals[s] - expected) * (totals[s] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 16.27);  // 3 degrees of freedom, p = 0.001
  EXPECT_NEAR(square_deviation / kBatches, kWindows * p1 * (1 - p1), 0.1);
}

}  // namespace
}  // namespace troupe
