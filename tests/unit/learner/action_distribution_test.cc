#include "learner/action_distribution.h"

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "learner/ppo_gradient.h"
#include "learner/ppo_objectives.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int64_t kBatch = 5;

Tensor Normal(std::vector<int64_t> shape, uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_current_seed(seed);
  return torch::empty(shape, torch::kFloat64).normal_(0, 1, generator);
}

double At(const Tensor& tensor, int64_t i, int64_t j) { return tensor[i][j].item<double>(); }

// Holds the gradient of `f` at `x` against central differences.
void ExpectGradient(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) {
  const Tensor leaf = x.clone().requires_grad_(true);
  f(leaf).backward();
  const Tensor gradient = leaf.grad().flatten();
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto moved = [&](double by) {
      Tensor y = x.clone();
      y.view(-1)[i] += by;
      return f(y).item<double>();
    };
    const double h = 1e-5;
    ASSERT_NEAR(gradient[i].item<double>(), (moved(h) - moved(-h)) / (2 * h), 1e-7) << i;
  }
}

TEST(Gaussian, LogProbEntropyAndKlAreTheSumsOverElements) {
  const Tensor mean = Normal({kBatch, 3}, 1), log_std = 0.3 * Normal({3}, 2);
  const Tensor a = Normal({kBatch, 3}, 3);
  const Tensor old_mean = Normal({kBatch, 3}, 4), old_log_std = 0.3 * Normal({3}, 5);
  double entropy = 0;
  for (int64_t j = 0; j < 3; ++j) {
    entropy += 0.5 * std::log(2 * M_PI * M_E) + log_std[j].item<double>();
  }
  EXPECT_NEAR(GaussianEntropy(log_std).item<double>(), entropy, 1e-12);
  for (int64_t i = 0; i < kBatch; ++i) {
    double log_prob = 0, kl = 0;
    for (int64_t j = 0; j < 3; ++j) {
      const double m = At(mean, i, j), s = std::exp(log_std[j].item<double>());
      const double m0 = At(old_mean, i, j), s0 = std::exp(old_log_std[j].item<double>());
      const double x = At(a, i, j);
      log_prob += std::log(std::exp(-(x - m) * (x - m) / (2 * s * s)) / (s * std::sqrt(2 * M_PI)));
      kl += std::log(s / s0) + (s0 * s0 + (m0 - m) * (m0 - m)) / (2 * s * s) - 0.5;
    }
    EXPECT_NEAR(GaussianLogProb(mean, log_std, a)[i].item<double>(), log_prob, 1e-10);
    EXPECT_NEAR(GaussianKl(old_mean, old_log_std, mean, log_std)[i].item<double>(), kl, 1e-10);
  }
}

TEST(Categorical, LogProbEntropyAndKlAreTheSumsOverElements) {
  const std::vector<int64_t> num_choices = {2, 4, 3};
  const Tensor logits = Normal({kBatch, 9}, 1), old_logits = Normal({kBatch, 9}, 2);
  const Tensor a =
      torch::tensor({0, 3, 1, 1, 0, 2, 0, 1, 0, 1, 2, 1, 1, 3, 2}, torch::kInt64).view({kBatch, 3});
  for (int64_t i = 0; i < kBatch; ++i) {
    double log_prob = 0, entropy = 0, kl = 0;
    int64_t offset = 0;
    for (size_t j = 0; j < num_choices.size(); offset += num_choices[j++]) {
      double sum = 0, old_sum = 0;
      for (int64_t k = 0; k < num_choices[j]; ++k) {
        sum += std::exp(At(logits, i, offset + k));
        old_sum += std::exp(At(old_logits, i, offset + k));
      }
      for (int64_t k = 0; k < num_choices[j]; ++k) {
        const double p = std::exp(At(logits, i, offset + k)) / sum;
        const double old_p = std::exp(At(old_logits, i, offset + k)) / old_sum;
        entropy -= p * std::log(p);
        kl += old_p * std::log(old_p / p);
        if (a[i][static_cast<int64_t>(j)].item<int64_t>() == k) log_prob += std::log(p);
      }
    }
    EXPECT_NEAR(CategoricalLogProb(logits, num_choices, a)[i].item<double>(), log_prob, 1e-10);
    EXPECT_NEAR(CategoricalEntropy(logits, num_choices)[i].item<double>(), entropy, 1e-10);
    EXPECT_NEAR(CategoricalKl(old_logits, logits, num_choices)[i].item<double>(), kl, 1e-10);
  }
}

TEST(Objectives, GradientsAreThoseOfFiniteDifferences) {
  const Tensor mean = Normal({kBatch, 2}, 1), a = Normal({kBatch, 2}, 2);
  const Tensor log_mu =
      GaussianLogProb(mean + 0.2 * Normal({kBatch, 2}, 3), torch::zeros({2}, torch::kFloat64), a);
  const Tensor A = Normal({kBatch}, 4);
  const std::function<Tensor(const Tensor&)> surrogates[] = {
      [&](const Tensor& log_pi) { return PolicyGradientSurrogate(log_pi, A); },
      [&](const Tensor& log_pi) { return ImportanceSurrogate(log_pi, log_mu, A); },
      [&](const Tensor& log_pi) { return ClippedSurrogate(log_pi, log_mu, A, 0.2); },
      [&](const Tensor& log_pi) { return ApproximateKl(log_pi, log_mu); }};
  const Tensor log_std = 0.2 * Normal({2}, 5);
  for (const auto& surrogate : surrogates) {
    ExpectGradient(mean,
                   [&](const Tensor& m) { return surrogate(GaussianLogProb(m, log_std, a)); });
    ExpectGradient(log_std,
                   [&](const Tensor& l) { return surrogate(GaussianLogProb(mean, l, a)); });
  }
  ExpectGradient(mean, [&](const Tensor& m) {
    return GaussianKl(mean + 0.3, log_std + 0.1, m, log_std).mean();
  });
  const Tensor choices = torch::tensor({0, 1, 1, 0, 2}, torch::kInt64).view({kBatch, 1});
  ExpectGradient(Normal({kBatch, 3}, 6), [&](const Tensor& logits) {
    return surrogates[2](CategoricalLogProb(logits, {3}, choices)) +
           CategoricalEntropy(logits, {3}).mean() +
           CategoricalKl(logits.detach() + 1, logits, {3}).mean();
  });
  const Tensor v_old = Normal({kBatch}, 7), target = Normal({kBatch}, 8);
  for (const double clip : {0.0, 0.5}) {
    ExpectGradient(Normal({kBatch}, 9),
                   [&](const Tensor& v) { return ValueObjective(v, v_old, target, clip); });
  }
}

Tensor Numbers(std::vector<double> values) { return torch::tensor(values, torch::kFloat64); }

TEST(Objectives, TheClippedSurrogateTakesTheSmallerOfBoth) {
  const Tensor log_mu = torch::zeros({4}, torch::kFloat64);
  const Tensor log_pi = Numbers({1.5, 1.5, 0.5, 0.5}).log();
  // r A of 1.5, clipped to 1.2; -1.5 stays; 0.5 stays; -0.5 is clipped to -0.8.
  const Tensor A = Numbers({1, -1, 1, -1});
  EXPECT_NEAR(ClippedSurrogate(log_pi, log_mu, A, 0.2).item<double>(), (1.2 - 1.5 + 0.5 - 0.8) / 4,
              1e-12);
  EXPECT_NEAR(ImportanceSurrogate(log_pi, log_mu, A).item<double>(), 0, 1e-12);
  EXPECT_NEAR(PolicyGradientSurrogate(log_pi, Numbers({1, 0, 0, 0})).item<double>(),
              std::log(1.5) / 4, 1e-12);
}

TEST(Objectives, AClippedValueGainsNothingBeyondItsBound) {
  const Tensor v_old = Numbers({0}), target = Numbers({1});
  EXPECT_NEAR(ValueObjective(Numbers({0.9}), v_old, target, 0.5).item<double>(), 0.125, 1e-12);
  EXPECT_NEAR(ValueObjective(Numbers({0.9}), v_old, target, 0).item<double>(), 0.005, 1e-12);
}

struct LossCase {
  std::string name;
  std::function<void(proto::Ppo&)> change;
};

class ClosedGradient : public testing::TestWithParam<LossCase> {};

// In one pass, and by the objectives and their backward(): the same loss and gradients.
TEST_P(ClosedGradient, IsThatOfTheObjectives) {
  proto::Ppo config;
  config.set_entropy_coefficient(0.01);
  GetParam().change(config);
  ASSERT_TRUE(HasClosedGradient(config));
  const auto normal = [](std::vector<int64_t> shape, uint64_t seed) {
    return Normal(std::move(shape), seed).to(torch::kFloat32);
  };
  const int64_t n = 50;
  struct {
    Tensor mean, log_std, v, a, advantage, target, v_old, log_mu;
  } x{.mean = normal({n, 3}, 1),
      .log_std = 0.3 * normal({3}, 2),
      .v = normal({n}, 3),
      .a = normal({n, 3}, 4),
      .advantage = 2 + 3 * normal({n}, 6),
      .target = normal({n}, 7),
      .v_old = normal({n}, 8)};
  // Ratios on both sides of the clipping range, and within.
  x.log_mu = GaussianLogProb(x.mean, x.log_std, x.a) + 0.3 * normal({n}, 5);
  const Tensor of_mean = torch::empty_like(x.mean), of_v = torch::empty_like(x.v);
  PpoLoss g;
  BeginPpoLoss(config, x.log_std.data_ptr<float>(), 3, 1, g);
  const AdvantageScale scale = ScaleOf(config, x.advantage.data_ptr<float>(), n);
  for (const auto& [begin, end] : {std::pair(0, 13), std::pair(13, 50)}) {  // in two parts
    const auto from = [begin = begin](const Tensor& tensor) {
      return tensor.data_ptr<float>() + begin * tensor.stride(0);
    };
    AddGaussianRows(config,
                    {.rows = end - begin,
                     .action_size = 3,
                     .head = from(x.mean),
                     .head_stride = 3,
                     .a = from(x.a),
                     .log_mu = from(x.log_mu),
                     .advantage = from(x.advantage)},
                    scale, n, from(of_mean), g);
    AddValueRows(
        config,
        {.rows = end - begin, .v = from(x.v), .target = from(x.target), .v_old = from(x.v_old)}, n,
        from(of_v), g);
  }

  const Tensor mean = x.mean.clone().requires_grad_(true), v = x.v.clone().requires_grad_(true);
  const Tensor log_std = x.log_std.clone().requires_grad_(true);
  const Tensor log_pi = GaussianLogProb(mean, log_std, x.a);
  const Tensor A = config.normalize_advantages() ? Standardize(x.advantage) : x.advantage;
  const Tensor surrogate = config.surrogate() == proto::CLIP
                               ? ClippedSurrogate(log_pi, x.log_mu, A, config.clip_epsilon())
                           : config.surrogate() == proto::IMPORTANCE
                               ? ImportanceSurrogate(log_pi, x.log_mu, A)
                               : PolicyGradientSurrogate(log_pi, A);
  const Tensor value_loss = ValueObjective(v, x.v_old, x.target, config.value_clip());
  const Tensor entropy = GaussianEntropy(log_std);
  (config.value_coefficient() * value_loss - surrogate - config.entropy_coefficient() * entropy)
      .backward();
  EXPECT_NEAR(g.surrogate, surrogate.item<double>(), 1e-5);
  EXPECT_NEAR(g.value_loss, value_loss.item<double>(), 1e-5);
  EXPECT_NEAR(g.entropy, entropy.item<double>(), 1e-5);
  EXPECT_NEAR(g.kl, ApproximateKl(log_pi, x.log_mu).item<double>(), 1e-5);
  const Tensor far = ((log_pi - x.log_mu).exp() - 1).abs() > config.clip_epsilon();
  EXPECT_NEAR(g.clip_fraction, far.to(torch::kFloat64).mean().item<double>(), 1e-6);
  EXPECT_GT(g.clip_fraction, 0.1);
  EXPECT_LT(g.clip_fraction, 0.9);
  EXPECT_TRUE(torch::allclose(of_mean, mean.grad(), 1e-4, 1e-6));
  EXPECT_TRUE(
      torch::allclose(torch::tensor(g.log_std, torch::kFloat32), log_std.grad(), 1e-4, 1e-6));
  EXPECT_TRUE(torch::allclose(of_v, v.grad(), 1e-4, 1e-6));
}

INSTANTIATE_TEST_SUITE_P(
    Losses, ClosedGradient,
    testing::Values(
        LossCase{"Clip", [](proto::Ppo&) {}},
        LossCase{"Importance", [](proto::Ppo& c) { c.set_surrogate(proto::IMPORTANCE); }},
        LossCase{"PolicyGradient", [](proto::Ppo& c) { c.set_surrogate(proto::POLICY_GRADIENT); }},
        LossCase{"RawAdvantages", [](proto::Ppo& c) { c.set_normalize_advantages(false); }},
        LossCase{"ClippedValue", [](proto::Ppo& c) { c.set_value_clip(0.5); }}),
    [](const auto& info) { return info.param.name; });

TEST(Objectives, TheKlCoefficientFollowsThePapersRule) {
  EXPECT_EQ(AdaptKlCoefficient(1, 0.0151, 0.01), 2);
  EXPECT_EQ(AdaptKlCoefficient(1, 0.0149, 0.01), 1);
  EXPECT_EQ(AdaptKlCoefficient(1, 0.0067, 0.01), 1);
  EXPECT_EQ(AdaptKlCoefficient(1, 0.0066, 0.01), 0.5);
}

TEST(Objectives, StandardizedAdvantagesHaveMeanZeroAndSpreadOne) {
  const Tensor A = Standardize(5 + 3 * Normal({1000}, 1));
  EXPECT_NEAR(A.mean().item<double>(), 0, 1e-12);
  EXPECT_NEAR(A.std().item<double>(), 1, 1e-6);
  EXPECT_EQ(Standardize(Numbers({7})).item<double>(), 7);  // one alone has no spread
}

}  // namespace
}  // namespace troupe
