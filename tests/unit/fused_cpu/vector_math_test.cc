#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/cpu/kernels.h"
#include "learner/fused/philox.h"
#include "learner/fused/sac_formulas.h"
#include "tests/unit/fused_cpu/aligned_rows.h"

namespace troupe::cpu {
namespace {

using Function = void (*)(const float* x, int64_t n, float* y);

class CpuMath : public EveryKernel {
 protected:
  // The largest |f(x) - exact(x)| / |exact(x)| over x from low to high.
  static double WorstError(Function f, double (*exact)(double), float low, float high) {
    constexpr int kPoints = 1 << 16;
    Rows x(1, kPoints), y(1, kPoints);
    for (int i = 0; i < kPoints; ++i) {
      x(0, i) = low + (high - low) * (static_cast<float>(i) / (kPoints - 1));
    }
    f(x.data(), kPoints, y.data());
    double worst = 0;
    for (int i = 0; i < kPoints; ++i) {
      const double right = exact(x(0, i));
      const double error = right == 0 ? std::abs(y(0, i)) : std::abs(y(0, i) / right - 1);
      worst = std::max(worst, error);
    }
    return worst;
  }
};

constexpr double kTwoUlps = 2.4e-7;

TEST_P(CpuMath, ExpIsWithinTwoUlps) {
  EXPECT_LT(WorstError(kernels_->exp, std::exp, -86, 87), kTwoUlps);
  EXPECT_LT(WorstError(kernels_->exp, std::exp, -0.01f, 0.01f), kTwoUlps);
}

TEST_P(CpuMath, LogIsWithinTwoUlps) {
  EXPECT_LT(WorstError(kernels_->log, std::log, 1e-30f, 0.5f), kTwoUlps);
  EXPECT_LT(WorstError(kernels_->log, std::log, 0.5f, 2), kTwoUlps);
  EXPECT_LT(WorstError(kernels_->log, std::log, 2, 1e30f), kTwoUlps);
}

TEST_P(CpuMath, TanhAndEluAreWithinFourUlps) {
  const auto elu = [](double x) { return x > 0 ? x : std::expm1(x); };
  for (const float range : {1e-6f, 0.01f, 0.5f, 2.0f, 9.0f, 30.0f}) {
    EXPECT_LT(WorstError(kernels_->tanh, std::tanh, -range, range), 2 * kTwoUlps) << range;
    EXPECT_LT(WorstError(kernels_->elu, elu, -range, range), 2 * kTwoUlps) << range;
  }
}

TEST_P(CpuMath, TanhStaysWithinOne) {
  Rows x(1, 16), y(1, 16);
  const std::vector<float> extremes = {8, 9, 10, 88, 1e30f, std::numeric_limits<float>::infinity()};
  for (size_t i = 0; i < extremes.size(); ++i) x(0, i) = extremes[i], x(0, i + 8) = -extremes[i];
  kernels_->tanh(x.data(), 16, y.data());
  for (size_t i = 0; i < extremes.size(); ++i) {
    EXPECT_LE(y(0, i), 1);
    EXPECT_GE(y(0, i), 0.9999997f);
    EXPECT_GE(y(0, i + 8), -1);
    EXPECT_LE(y(0, i + 8), -0.9999997f);
  }
}

TEST_P(CpuMath, NormalsAreThoseOfPhilox) {
  constexpr int kCount = 1 << 16;
  Rows word0(1, kCount), word1(1, kCount), normals(1, kCount);
  auto* const x0 = reinterpret_cast<uint32_t*>(word0.data());
  auto* const x1 = reinterpret_cast<uint32_t*>(word1.data());
  kernels_->draw_words(7, 9, static_cast<uint32_t>(Draw::kNextAction), 0, kCount, x0, x1);
  kernels_->normals(x0, x1, kCount, normals.data());
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_NEAR(normals(0, i), DrawNormal(DrawWords(7, 9, Draw::kNextAction, i)), 4e-6) << i;
  }
  x0[0] = ~0u, x0[1] = 0, x1[0] = x1[1] = 0;  // the ends of the range
  kernels_->normals(x0, x1, 2, normals.data());
  EXPECT_NEAR(normals(0, 0), 0, 1e-3);
  EXPECT_NEAR(normals(0, 1), std::sqrt(48 * std::log(2.0)), 1e-5);
}

TEST_P(CpuMath, SquashedActionsAreThoseOfTheFormula) {
  constexpr int kCount = 4096;
  Rows mean = Rows::Random(1, kCount, engine_), log_std = Rows::Random(1, kCount, engine_),
       noise = Rows::Random(1, kCount, engine_);
  Rows action(1, kCount), spread(1, kCount), is_free(1, kCount), log_prob(1, kCount);
  for (int i = 0; i < kCount; ++i) {
    mean(0, i) *= 8, log_std(0, i) = 10 * log_std(0, i) - 4, noise(0, i) *= 5;
  }
  kernels_->squash({.n = kCount,
                    .mean = mean.data(),
                    .log_std = log_std.data(),
                    .noise = noise.data(),
                    .log_std_min = -10,
                    .log_std_max = 2,
                    .action = action.data(),
                    .spread = spread.data(),
                    .is_free = is_free.data(),
                    .log_prob = log_prob.data()});
  for (int i = 0; i < kCount; ++i) {
    const SquashedElement e = SquashElement(mean(0, i), log_std(0, i), noise(0, i), -10, 2);
    ASSERT_NEAR(action(0, i), e.action, 1e-6);
    ASSERT_NEAR(spread(0, i), e.spread, 1e-6 * std::abs(e.spread) + 1e-9);
    ASSERT_EQ(is_free(0, i), e.is_free);
    ASSERT_NEAR(log_prob(0, i), e.log_prob, 2e-6 * (1 + std::abs(e.log_prob)) + 4e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, CpuMath,
                         testing::Values(InstructionSet::kPortable, InstructionSet::kAvx2,
                                         InstructionSet::kAvx512),
                         SetName);

}  // namespace
}  // namespace troupe::cpu
