#include "learner/returns.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "learner/unrolls.h"

namespace troupe {
namespace {

using torch::Tensor;

// Unrolls in plain numbers: row t is a step or final, and step t may lead to a terminated state.
struct PlainUnroll {
  std::vector<bool> is_step;     // T + 1
  std::vector<bool> terminated;  // T: transition t ends in a terminated state
  std::vector<double> r;         // T
  std::vector<double> v;         // T + 1
  std::vector<double> log_rho;   // T

  int64_t length() const { return static_cast<int64_t>(r.size()); }
  // Transition t + 1 belongs to the same episode and was collected.
  bool GoesOn(int64_t t) const { return t + 1 < length() && is_step[t + 1]; }
  double NextValue(int64_t t) const { return terminated[t] ? 0 : v[t + 1]; }
};

constexpr int64_t kUnrolls = 20, kLength = 30;

std::vector<PlainUnroll> RandomUnrolls() {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  std::vector<PlainUnroll> unrolls(kUnrolls);
  for (PlainUnroll& unroll : unrolls) {
    for (int64_t t = 0; t <= kLength; ++t) {
      unroll.is_step.push_back(t < kLength && random() % 6 != 0);
      unroll.v.push_back(static_cast<float>(normal(random)));
    }
    for (int64_t t = 0; t < kLength; ++t) {
      // Half of the ends are terminations, the others truncations or cuts.
      unroll.terminated.push_back(!unroll.is_step[t + 1] && random() % 2 == 0);
      unroll.r.push_back(static_cast<float>(normal(random)));
      unroll.log_rho.push_back(static_cast<float>(0.5 * normal(random)));
    }
  }
  return unrolls;
}

template <typename Get>
Tensor Stack(const std::vector<PlainUnroll>& unrolls, int64_t length, torch::Dtype dtype, Get get) {
  Tensor stacked = torch::zeros({static_cast<int64_t>(unrolls.size()), length}, torch::kFloat64);
  for (size_t i = 0; i < unrolls.size(); ++i) {
    for (int64_t t = 0; t < length; ++t) stacked[i][t] = static_cast<double>(get(unrolls[i], t));
  }
  return stacked.to(dtype);
}

Unrolls ToUnrolls(const std::vector<PlainUnroll>& plain) {
  const int64_t length = plain[0].length();
  Unrolls b;
  b.r = Stack(plain, length, torch::kFloat32, [](const auto& u, int64_t t) { return u.r[t]; });
  b.is_step =
      Stack(plain, length, torch::kBool, [](const auto& u, int64_t t) { return u.is_step[t]; });
  b.terminated =
      Stack(plain, length, torch::kBool, [](const auto& u, int64_t t) { return u.terminated[t]; });
  b.goes_on = Stack(plain, length, torch::kBool,
                    [](const auto& u, int64_t t) { return bool{u.is_step[t + 1]}; });
  return b;
}

Tensor Values(const std::vector<PlainUnroll>& plain) {
  return Stack(plain, plain[0].length() + 1, torch::kFloat32,
               [](const auto& u, int64_t t) { return u.v[t]; });
}

// Holds `actual` against `expected(unroll, t)` wherever there is a step, and against 0 elsewhere.
template <typename Expected>
void ExpectAll(const std::vector<PlainUnroll>& plain, const Tensor& actual, Expected expected) {
  for (size_t i = 0; i < plain.size(); ++i) {
    for (int64_t t = 0; t < plain[i].length(); ++t) {
      const double wanted = plain[i].is_step[t] ? expected(plain[i], t) : 0;
      ASSERT_NEAR(actual[i][t].item<double>(), wanted, 1e-5 * (1 + std::abs(wanted)))
          << "unroll " << i << ", step " << t;
    }
  }
}

struct GammaLambda {
  double gamma, lambda;
};

class GaeTest : public testing::TestWithParam<GammaLambda> {};

// Equation 16 written out: the sum over l of (gamma lambda)^l delta_{t+l} to the end of the data.
TEST_P(GaeTest, IsTheSumOfTheDeltas) {
  const auto [gamma, lambda] = GetParam();
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  const Targets targets = Gae(ToUnrolls(plain), ToUnrolls(plain).r, Values(plain), gamma, lambda);
  const auto advantage = [gamma = gamma, lambda = lambda](const PlainUnroll& u, int64_t t) {
    double sum = 0, weight = 1;
    for (int64_t k = t;; ++k, weight *= gamma * lambda) {
      sum += weight * (u.r[k] + gamma * u.NextValue(k) - u.v[k]);
      if (!u.GoesOn(k)) return sum;
    }
  };
  ExpectAll(plain, targets.advantage, advantage);
  ExpectAll(plain, targets.value,
            [&](const PlainUnroll& u, int64_t t) { return advantage(u, t) + u.v[t]; });
}

INSTANTIATE_TEST_SUITE_P(Settings, GaeTest,
                         testing::Values(GammaLambda{0.99, 0.95}, GammaLambda{1, 1},
                                         GammaLambda{0.9, 0}, GammaLambda{0, 0.5}));

// The rewards of the next n steps and the value where they end.
double NStepReturn(const PlainUnroll& u, int64_t t, double gamma, int64_t n) {
  double sum = 0;
  for (int64_t k = 0;; ++k) {
    sum += std::pow(gamma, k) * u.r[t + k];
    if (k + 1 == n || !u.GoesOn(t + k)) return sum + std::pow(gamma, k + 1) * u.NextValue(t + k);
  }
}

TEST(Returns, LambdaOneIsMonteCarloAndLambdaZeroIsOneStep) {
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  const Unrolls b = ToUnrolls(plain);
  ExpectAll(plain, Gae(b, b.r, Values(plain), 0.9, 1).value,
            [](const PlainUnroll& u, int64_t t) { return NStepReturn(u, t, 0.9, kLength); });
  ExpectAll(plain, Gae(b, b.r, Values(plain), 0.9, 0).value,
            [](const PlainUnroll& u, int64_t t) { return NStepReturn(u, t, 0.9, 1); });
}

TEST(Returns, NStepEndsAfterNStepsOrWithTheData) {
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  const Unrolls b = ToUnrolls(plain);
  for (const int64_t n : {1, 2, 3, 7, 100}) {
    const Targets targets = NStep(b, b.r, Values(plain), 0.95, n);
    ExpectAll(plain, targets.value,
              [&](const PlainUnroll& u, int64_t t) { return NStepReturn(u, t, 0.95, n); });
    ExpectAll(plain, targets.advantage,
              [&](const PlainUnroll& u, int64_t t) { return NStepReturn(u, t, 0.95, n) - u.v[t]; });
  }
}

// One step of reward 1, then a last row whose value is 10.
Targets OneStep(bool terminated) {
  const std::vector<PlainUnroll> plain = {{.is_step = {true, false},
                                           .terminated = {terminated},
                                           .r = {1},
                                           .v = {3, 10},
                                           .log_rho = {0}}};
  const Unrolls b = ToUnrolls(plain);
  return Gae(b, b.r, Values(plain), 0.5, 0.95);
}

TEST(Returns, ATruncatedEpisodeGoesOnWithTheValueOfItsLastObservationATerminatedOneEnds) {
  EXPECT_FLOAT_EQ(OneStep(/*terminated=*/false).value[0][0].item<float>(), 1 + 0.5 * 10);
  EXPECT_FLOAT_EQ(OneStep(/*terminated=*/true).value[0][0].item<float>(), 1);
  EXPECT_FLOAT_EQ(OneStep(/*terminated=*/true).advantage[0][0].item<float>(), 1 - 3);
}

// Equation 1 of V-trace written out.
TEST(VTraceTest, IsTheSumOfTheWeightedDeltas) {
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  const Unrolls b = ToUnrolls(plain);
  const double gamma = 0.9;
  const VTraceBounds bounds{.rho_bar = 1.2, .c_bar = 0.8};
  const Tensor log_rho =
      Stack(plain, kLength, torch::kFloat32, [](const auto& u, int64_t t) { return u.log_rho[t]; });
  const auto target = [&](const PlainUnroll& u, int64_t s) {
    double sum = u.v[s], weight = 1;
    for (int64_t t = s;; ++t) {
      const double ratio = std::exp(u.log_rho[t]);
      const double delta = u.r[t] + gamma * u.NextValue(t) - u.v[t];
      sum += weight * std::min(bounds.rho_bar, ratio) * delta;
      if (!u.GoesOn(t)) return sum;
      weight *= gamma * std::min(bounds.c_bar, ratio);
    }
  };
  const Targets targets = VTrace(b, b.r, Values(plain), log_rho, gamma, bounds);
  ExpectAll(plain, targets.value, target);
  ExpectAll(plain, targets.advantage, [&](const PlainUnroll& u, int64_t t) {
    const double next = u.GoesOn(t) ? target(u, t + 1) : u.NextValue(t);
    return u.r[t] + gamma * next - u.v[t];
  });
}

TEST(VTraceTest, OnPolicyIsMonteCarlo) {
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  const Unrolls b = ToUnrolls(plain);
  const Targets targets = VTrace(b, b.r, Values(plain), torch::zeros_like(b.r), 0.9, {});
  const Targets monte_carlo = Gae(b, b.r, Values(plain), 0.9, 1);
  EXPECT_TRUE(torch::allclose(targets.value, monte_carlo.value, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(targets.advantage, monte_carlo.advantage, 1e-4, 1e-5));
}

TEST(Returns, PastReturnsBeginAnewWithEachEpisode) {
  const std::vector<PlainUnroll> plain = RandomUnrolls();
  ExpectAll(plain, PastReturns(ToUnrolls(plain), 0.7), [](const PlainUnroll& u, int64_t t) {
    double sum = 0;
    for (int64_t k = t; k >= 0 && u.is_step[k]; --k) sum += std::pow(0.7, t - k) * u.r[k];
    return sum;
  });
}

}  // namespace
}  // namespace troupe
