#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/window_batch.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;

TEST(ImportanceWeights, AreThePapersWhateverTheNumberOfWindows) {
  const std::vector<float> probabilities = {0.5f, 0.125f, 0.25f, 0.001f};
  for (const double beta : {0.0, 0.4, 1.0}) {
    for (const double n : {4.0, 1e6}) {
      double largest = 0;
      for (const float p : probabilities) largest = std::max(largest, std::pow(n * p, -beta));
      const std::vector<float> weights = ImportanceWeights(probabilities, beta);
      for (size_t i = 0; i < weights.size(); ++i) {
        EXPECT_FLOAT_EQ(weights[i], std::pow(n * probabilities[i], -beta) / largest);
      }
    }
  }
}

TEST(ImportanceWeights, OfEqualProbabilitiesAreOne) {
  EXPECT_THAT(ImportanceWeights({1e-7f, 1e-7f}, 0.6), ElementsAre(1, 1));
}

TEST(ImportanceWeights, OfAProbabilityBelowAllFloatsAreFinite) {
  EXPECT_THAT(ImportanceWeights({0, 0.5f}, 1),
              ElementsAre(1, FloatEq(2 * std::numeric_limits<float>::min())));
}

TEST(ImportanceWeights, OfNothingAreNone) { EXPECT_THAT(ImportanceWeights({}, 1), ElementsAre()); }

}  // namespace
}  // namespace troupe
