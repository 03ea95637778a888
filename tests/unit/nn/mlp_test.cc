#include "common/mlp.h"

#include "absl/strings/str_cat.h"
#include "common/squashed_gaussian.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using torch::Tensor;

proto::Mlp Spec(bool layer_norm, proto::Activation activation) {
  proto::Mlp spec;
  spec.add_hidden_sizes(7);
  spec.add_hidden_sizes(5);
  spec.set_layer_norm(layer_norm);
  spec.set_activation(activation);
  return spec;
}

class MlpTest : public testing::TestWithParam<std::tuple<bool, proto::Activation>> {
 protected:
  const proto::Mlp spec_ = Spec(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const MlpShape ensemble_shape_{.inputs = 3, .outputs = 2, .ensemble = 4, .spec = spec_};
  const MlpShape single_shape_{.inputs = 3, .outputs = 2, .ensemble = 0, .spec = spec_};
};

TEST_P(MlpTest, AnEnsembleIsItsMembersComputedOneByOne) {
  FlatParameters ensemble(MlpParameters(ensemble_shape_), torch::kFloat64);
  ensemble.Initialize(1);
  // Norms start at one and zero; move them, or a swap of them would not show.
  ensemble.values().add_(torch::linspace(-0.3, 0.3, ensemble.values().numel(), torch::kFloat64));
  const Tensor x = torch::linspace(-1, 1, 30, torch::kFloat64).view({10, 3});
  const Tensor all = MlpForward(ensemble_shape_, ensemble.trainable(), x.expand({4, -1, -1}));
  all.square().sum().backward();
  for (int64_t e = 0; e < 4; ++e) {
    FlatParameters single(MlpParameters(single_shape_), torch::kFloat64);
    for (size_t i = 0; i < single.frozen().size(); ++i) {
      single.frozen()[i].copy_(ensemble.frozen()[i][e].view(single.frozen()[i].sizes()));
    }
    const Tensor one = MlpForward(single_shape_, single.trainable(), x);
    EXPECT_TRUE(torch::allclose(one, all[e], 1e-12, 1e-12));
    one.square().sum().backward();
    for (size_t i = 0; i < single.trainable().size(); ++i) {
      EXPECT_TRUE(torch::allclose(
          single.trainable()[i].grad(),
          ensemble.trainable()[i].grad()[e].view(single.trainable()[i].sizes()), 1e-10, 1e-12));
    }
  }
}

TEST_P(MlpTest, BackwardFillsTheFlatGradient) {
  FlatParameters flat(MlpParameters(single_shape_), torch::kFloat64);
  flat.Initialize(2);
  const Tensor x = torch::linspace(-1, 1, 30, torch::kFloat64).view({10, 3});
  const auto loss = [&] { return MlpForward(single_shape_, flat.trainable(), x).square().sum(); };
  loss().backward();
  const torch::NoGradGuard no_grad;
  for (const int64_t i : {int64_t{0}, int64_t{20}, int64_t{25}, flat.values().numel() - 1}) {
    constexpr double kStep = 1e-6;
    const double at = flat.values()[i].item<double>();
    flat.values()[i] = at + kStep;
    const double above = loss().item<double>();
    flat.values()[i] = at - kStep;
    const double below = loss().item<double>();
    flat.values()[i] = at;
    EXPECT_NEAR(flat.gradients()[i].item<double>(), (above - below) / (2 * kStep), 1e-6) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, MlpTest,
                         testing::Combine(testing::Bool(),
                                          testing::Values(proto::RELU, proto::TANH, proto::ELU)));

TEST(MlpDropoutTest, KeepsTheMeanAndIsOffWithoutAGenerator) {
  MlpShape shape{.inputs = 1, .outputs = 1, .ensemble = 0, .spec = {}};
  shape.spec.add_hidden_sizes(20000);
  shape.spec.set_dropout(0.25);
  FlatParameters flat(MlpParameters(shape), torch::kFloat64);
  flat.values().zero_();
  flat.frozen()[0].fill_(1);
  flat.frozen()[2].fill_(1.0 / 20000);
  const Tensor x = torch::ones({1, 1}, torch::kFloat64);
  EXPECT_NEAR(MlpForward(shape, flat.frozen(), x).item<double>(), 1, 1e-9);
  const at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  const double dropped = MlpForward(shape, flat.frozen(), x, generator).item<double>();
  EXPECT_NEAR(dropped, 1, 0.03);
  EXPECT_NE(dropped, 1);
}

TEST(FlatParametersTest, LinearLayersStartAsPyTorchsDo) {
  MlpShape shape{.inputs = 100, .outputs = 4, .ensemble = 0, .spec = {}};
  shape.spec.add_hidden_sizes(64);
  FlatParameters flat(MlpParameters(shape), torch::kFloat32);
  flat.Initialize(7);
  const Tensor weight = flat.frozen()[0];
  EXPECT_LE(weight.abs().max().item<double>(), 0.1);
  EXPECT_GT(weight.abs().max().item<double>(), 0.099);
  EXPECT_NEAR(weight.std().item<double>(), 0.1 / std::sqrt(3.0), 0.002);
  EXPECT_LE(flat.frozen()[2].abs().max().item<double>(), 0.125);
  EXPECT_GT(flat.frozen()[1].abs().max().item<double>(), 0.05) << "biases are drawn too";
}

TEST(SquashedGaussianTest, IsTheDensityOfTheSquashedVariable) {
  const Tensor head = torch::tensor({0.3, -1.2, -0.5, 0.4}, torch::kFloat64).view({1, 4});
  const Tensor noise = torch::tensor({0.7, -0.2}, torch::kFloat64).view({1, 2});
  const ActionSample sample = SquashedGaussian(head, noise, -20, 2);
  double log_prob = 0;
  for (int i = 0; i < 2; ++i) {
    const double sigma = std::exp(head[0][2 + i].item<double>());
    const double e = noise[0][i].item<double>();
    const double a = std::tanh(head[0][i].item<double>() + sigma * e);
    EXPECT_NEAR(sample.action[0][i].item<double>(), a, 1e-14);
    log_prob += std::log(std::exp(-e * e / 2) / (sigma * std::sqrt(2 * M_PI)) / (1 - a * a));
  }
  EXPECT_NEAR(sample.log_prob.item<double>(), log_prob, 1e-12);
}

TEST(SquashedGaussianTest, StaysFiniteWhereTanhSaturates) {
  for (const double mean : {-50.0, 50.0}) {
    const Tensor head = torch::tensor({mean, 0.0}).view({1, 2}).requires_grad_(true);
    const ActionSample sample = SquashedGaussian(head, torch::zeros({1, 1}), -20, 2);
    // log N(0) - log(4 e^-100): the exact value where 1 - tanh^2 is 0 in floats.
    EXPECT_NEAR(sample.log_prob.item<float>(), -0.919 + 100 - std::log(4.0), 0.01);
    sample.log_prob.sum().backward();
    EXPECT_TRUE(torch::isfinite(head.grad()).all().item<bool>());
  }
}

TEST(SquashedGaussianTest, ClampsTheStandardDeviation) {
  const Tensor head = torch::tensor({0.0, -30.0}, torch::kFloat64).view({1, 2});
  const Tensor noise = torch::ones({1, 1}, torch::kFloat64);
  EXPECT_NEAR(SquashedGaussian(head, noise, -2, 2).action.item<double>(), std::tanh(std::exp(-2.0)),
              1e-12);
}

}  // namespace
}  // namespace troupe
