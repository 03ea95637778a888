#include "learner/sac.h"

#include <random>

#include "common/safetensors.h"
#include "common/tensor_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/objectives.h"
#include "tests/unit/learner/rows.h"
#include "tests/unit/learner/sac_reference.h"

namespace troupe {
namespace {

using testing::HasSubstr;
using torch::Tensor;

constexpr int kStates = 3, kActions = 2, kHidden = 5, kBatch = 6;

proto::Sac SmallConfig() {
  proto::Sac config;
  config.set_batch_size(kBatch);
  for (proto::Mlp* mlp : {config.mutable_actor(), config.mutable_critic()}) {
    mlp->add_hidden_sizes(kHidden);
  }
  for (const auto set :
       {&proto::Sac::set_actor_learning_rate, &proto::Sac::set_critic_learning_rate,
        &proto::Sac::set_alpha_learning_rate}) {
    (config.*set)(0.01);
  }
  config.set_tau(0.1);
  config.set_initial_alpha(0.3);
  return config;
}

std::unique_ptr<Sac> MakeSac(const proto::Sac& config, uint64_t seed = 1,
                             torch::Dtype dtype = torch::kFloat64) {
  auto sac = Sac::Create({.config = config, .seed = seed, .tensors = dtype},
                         MakeLayout(kStates, {-1, -1}, {1, 1}));
  return *std::move(sac);
}

Numbers ToNumbers(const Tensor& t) {
  const Tensor flat = t.detach().to(torch::kFloat64).contiguous();
  return Numbers(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
}

std::vector<Numbers> ToRows(const Tensor& t) {
  std::vector<Numbers> rows;
  for (int64_t i = 0; i < t.size(0); ++i) rows.push_back(ToNumbers(t[i]));
  return rows;
}

Transitions RandomBatch(int seed, torch::Dtype dtype = torch::kFloat64) {
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_current_seed(seed);
  const auto normal = [&](std::vector<int64_t> shape) {
    return torch::empty(shape, torch::kFloat64).normal_(0, 1, generator).to(dtype);
  };
  return {.s = normal({kBatch, kStates}),
          .a = normal({kBatch, kActions}).tanh(),
          .r = normal({kBatch}),
          .gamma = torch::tensor({.9, .9, .81, .9, .9, .729}, torch::kFloat64).to(dtype),
          .d = torch::tensor({0., 1., 0., 0., 1., 0.}, torch::kFloat64).to(dtype),
          .s_next = normal({kBatch, kStates})};
}

std::vector<SacReference::Transition> ToReference(const Transitions& b) {
  std::vector<SacReference::Transition> batch;
  for (int64_t i = 0; i < kBatch; ++i) {
    batch.push_back({ToNumbers(b.s[i]), ToNumbers(b.a[i]), b.r[i].item<double>(),
                     b.gamma[i].item<double>(), b.d[i].item<double>(), ToNumbers(b.s_next[i])});
    if (b.weight) batch.back().weight = (*b.weight)[i].item<double>();
  }
  return batch;
}

SacReference MakeReference(const proto::Sac& config, Sac& sac) {
  return {.S = kStates,
          .A = kActions,
          .H = kHidden,
          .E = config.num_critics(),
          .learning_rate = config.critic_learning_rate(),
          .tau = config.tau(),
          .target_entropy = -config.target_entropy_scale() * kActions,
          .backup_entropy = config.backup_entropy(),
          .mean_critic = config.actor_uses_mean_critic(),
          .automatic_temperature = config.entropy() == proto::AUTOMATIC_TEMPERATURE,
          .has_entropy = config.entropy() != proto::NO_ENTROPY,
          .on_v = config.critic_kind() == proto::V_FROM_REPLAY,
          .score_function = config.actor_gradient() == proto::SCORE_FUNCTION,
          .baseline = config.score_function_baseline(),
          .actor_interval = config.actor_update_interval(),
          .phi = ToNumbers(sac.actor().parameters().values()),
          .theta = ToNumbers(sac.critics().parameters().values()),
          .theta_bar = ToNumbers(sac.target_critics().parameters().values()),
          .log_alpha = sac.log_alpha().item<double>()};
}

// The generator that the next update will draw from.
at::Generator NextGenerator(const Sac& sac) {
  const auto files = sac.Save();
  const auto file = Safetensors::Parse(files->at("rng_state.safetensors"));
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_state(
      *ReadTensor(*file, "generator", torch::kUInt8, generator.get_state().sizes().vec()));
  return generator;
}

SacReference::Noise NextNoise(const Sac& sac, const proto::Sac& config) {
  at::Generator generator = NextGenerator(sac);
  const auto normal = [&] {
    return ToRows(torch::empty({kBatch, kActions}, torch::kFloat64).normal_(0, 1, generator));
  };
  SacReference::Noise noise;
  noise.next = normal();
  for (int64_t e = 0; e < config.num_critics(); ++e) noise.subset.push_back(e);
  if (config.min_subset() < config.num_critics()) {
    const Tensor order = torch::randperm(config.num_critics(), generator, torch::kInt64);
    for (int64_t i = 0; i < order.numel(); ++i) noise.subset[i] = order[i].item<int64_t>();
    noise.subset.resize(config.min_subset());
  }
  noise.now = normal();
  noise.baseline = normal();
  return noise;
}

void ExpectNear(const Numbers& actual, const Numbers& expected, double tolerance,
                const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], tolerance) << what << " " << i;
  }
}

struct UpdateCase {
  std::string name;
  std::function<void(proto::Sac&)> change;
};

class SacUpdate : public testing::TestWithParam<UpdateCase> {};

TEST_P(SacUpdate, IsTheOneWrittenOutInPlainArithmetic) {
  proto::Sac config = SmallConfig();
  GetParam().change(config);
  const auto sac = MakeSac(config);
  // Targets that differ from the critics, or a swap of the two would not show.
  sac->target_critics().parameters().values().mul_(0.7);
  SacReference reference = MakeReference(config, *sac);
  for (int update = 1; update <= 4; ++update) {
    Transitions b = RandomBatch(update);
    if (update > 2) b.weight = b.r.sigmoid();
    const SacReference::Noise noise = NextNoise(*sac, config);
    const auto batch = ToReference(b);
    const double alpha = reference.has_entropy ? std::exp(reference.log_alpha) : 0;
    const double q_loss =
        reference.CriticLoss(reference.theta, batch, reference.Targets(batch, noise, alpha));
    ASSERT_TRUE(sac->Step(b).ok());
    reference.Update(batch, noise);
    EXPECT_NEAR(sac->Statistics().at("q_loss"), q_loss, 1e-9);
    ExpectNear(ToNumbers(sac->critics().parameters().values()), reference.theta, 2e-6, "theta");
    ExpectNear(ToNumbers(sac->actor().parameters().values()), reference.phi, 2e-6, "phi");
    ExpectNear(ToNumbers(sac->target_critics().parameters().values()), reference.theta_bar, 2e-6,
               "theta_bar");
    EXPECT_NEAR(sac->log_alpha().item<double>(), reference.log_alpha, 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Configs, SacUpdate,
    testing::Values(
        UpdateCase{"Plain", [](proto::Sac&) {}},
        UpdateCase{"NoEntropyInTheTarget", [](proto::Sac& c) { c.set_backup_entropy(false); }},
        UpdateCase{"FixedTemperature",
                   [](proto::Sac& c) { c.set_entropy(proto::FIXED_TEMPERATURE); }},
        UpdateCase{"NoEntropy", [](proto::Sac& c) { c.set_entropy(proto::NO_ENTROPY); }},
        UpdateCase{"ScoreFunction",
                   [](proto::Sac& c) { c.set_actor_gradient(proto::SCORE_FUNCTION); }},
        UpdateCase{"ScoreFunctionWithoutBaseline",
                   [](proto::Sac& c) {
                     c.set_actor_gradient(proto::SCORE_FUNCTION);
                     c.set_score_function_baseline(false);
                   }},
        UpdateCase{"ValueFromReplay",
                   [](proto::Sac& c) { c.set_critic_kind(proto::V_FROM_REPLAY); }},
        UpdateCase{"HalfTheTargetEntropy", [](proto::Sac& c) { c.set_target_entropy_scale(0.5); }},
        UpdateCase{"LikeRedq",
                   [](proto::Sac& c) {
                     c.set_num_critics(4);
                     c.set_min_subset(2);
                     c.set_actor_update_interval(2);
                     c.set_actor_uses_mean_critic(true);
                   }}),
    [](const auto& info) { return info.param.name; });

// Batches of windows of two rows, drawn with uneven odds.
class PrioritizedSacTest : public testing::Test {
 protected:
  static constexpr int64_t kSteps = 1000;  // of the run

  PrioritizedSacTest() : layout_(MakeLayout(kStates, {-1, -1}, {1, 1})) {
    const auto pool = std::make_shared<BatchPool>(kBatch, 2, layout_.stride_bytes());
    batch_ = pool->Take();
    std::vector<Row> rows;
    for (int i = 0; i < 2 * kBatch; ++i) {
      const auto x = static_cast<float>(i);
      rows.push_back({.observation = {x / 7, -x / 5, 0.5F},
                      .action = {std::sin(x), 0.1F},
                      .reward = x * x / 3});
    }
    const std::vector<uint8_t> bytes = Pack(layout_, rows);
    std::copy(bytes.begin(), bytes.end(), batch_.buffer->data);
    batch_.buffer->probabilities = {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125};
  }

  std::unique_ptr<Sac> Make(bool prioritized) {
    Sac::Options options{.config = SmallConfig(), .tensors = torch::kFloat64};
    if (prioritized) options.prioritized.emplace(0.4, kSteps);
    return *Sac::Create(options, layout_);
  }

  Transitions Read() const {
    return TransitionReader::Create(layout_, {.tensors = torch::kFloat64})
        ->Read(batch_.data(), kBatch);
  }

  const Layout layout_;
  WindowBatch batch_;
};

TEST_F(PrioritizedSacTest, ANewPriorityIsTheWindowsErrorAsTheMeanOverTheCritics) {
  const auto sac = Make(true);
  EXPECT_TRUE(sac->Priorities().empty());
  const Transitions b = Read();
  SacReference reference = MakeReference(SmallConfig(), *sac);
  const Numbers y = reference.Targets(ToReference(b), NextNoise(*sac, SmallConfig()),
                                      std::exp(reference.log_alpha));
  at::Generator unused = at::globalContext().defaultGenerator(torch::kCPU).clone();
  const Tensor q = sac->critics().Values(b.s, b.a, unused).detach();
  const Tensor errors = (q - torch::tensor(y, torch::kFloat64)).abs().mean(0);

  ASSERT_TRUE(sac->Update(batch_, 0).ok());
  const std::vector<float> priorities = sac->Priorities();
  ExpectNear({priorities.begin(), priorities.end()}, ToNumbers(errors), 1e-4, "priority");
}

TEST_F(PrioritizedSacTest, AWindowWithoutAnErrorKeepsAChance) {
  const auto sac = Make(true);
  sac->critics().parameters().values().zero_();
  sac->target_critics().parameters().values().zero_();
  sac->log_alpha().fill_(-100);
  ASSERT_TRUE(sac->Update(batch_, 0).ok());
  EXPECT_GT(sac->Priorities()[0], 0);  // its reward is 0
  EXPECT_LT(sac->Priorities()[0], 1e-5);
}

TEST_F(PrioritizedSacTest, LossesAreWeighedAgainstTheOddsMoreAndMoreOverTheRun) {
  const auto loss = [](Sac& sac) { return sac.Statistics().at("q_loss"); };
  // Each window's own loss by a weight of exponent beta, the largest scaled to 1.
  const auto expected = [&](double beta) {
    double sum = 0;
    for (int i = 0; i < kBatch; ++i) {
      Transitions b = Read();
      b.weight = torch::one_hot(torch::tensor(i), kBatch).to(torch::kFloat64);
      const auto sac = Make(false);
      EXPECT_TRUE(sac->Step(b).ok());
      sum += loss(*sac) * std::pow(0.03125 / batch_.buffer->probabilities[i], beta);
    }
    return sum;
  };
  const std::pair<int64_t, double> exponents[] = {{0, 0.4}, {kSteps / 2, 0.7}, {2 * kSteps, 1}};
  for (const auto& [env_steps, beta] : exponents) {
    const auto sac = Make(true);
    ASSERT_TRUE(sac->Update(batch_, env_steps).ok());
    EXPECT_NEAR(loss(*sac), expected(beta), 1e-5 * loss(*sac)) << env_steps;
  }
}

TEST_F(PrioritizedSacTest, WithoutPrioritiesTheOddsDoNotMatter) {
  const auto sac = Make(false), other = Make(false);
  ASSERT_TRUE(sac->Update(batch_, 0).ok());
  batch_.buffer->probabilities.assign(kBatch, 0.5);
  ASSERT_TRUE(other->Update(batch_, 0).ok());
  EXPECT_EQ(*sac->Save(), *other->Save());
  EXPECT_TRUE(sac->Priorities().empty());
}

TEST(SacObjectivesTest, AreTheHandComputedValues) {
  const Tensor q = torch::tensor({1., 2., 3., 5.}).view({2, 2});
  const Tensor y = torch::tensor({2., 4.});
  // (1 + 4) / 2 / 2 for the first critic, (1 + 1) / 2 / 2 for the second.
  EXPECT_FLOAT_EQ(CriticObjective(q, y).item<float>(), 1.25f + 0.5f);
  const Tensor log_pi = torch::tensor({-1., -3.}), alpha = torch::tensor({0.5});
  EXPECT_FLOAT_EQ(ActorObjective(q[0], log_pi, alpha).item<float>(), (-0.5f - 1 - 1.5f - 2) / 2);
  // Entropy 2 above the target -1: the temperature must fall, so its gradient is positive.
  EXPECT_FLOAT_EQ(TemperatureGradient(log_pi, -1).item<float>(), 3);
}

TEST(SacTest, TheActorsStepLeavesNoGradientInTheCritics) {
  const auto sac = MakeSac(SmallConfig());
  ASSERT_TRUE(sac->Step(RandomBatch(1)).ok());
  EXPECT_EQ(sac->critics().parameters().gradients().abs().sum().item<double>(), 0);
  EXPECT_EQ(sac->actor().parameters().gradients().abs().sum().item<double>(), 0);
}

proto::Sac EverythingOn() {
  proto::Sac config = SmallConfig();
  config.set_num_critics(3);
  config.set_actor_update_interval(2);
  config.mutable_critic()->set_layer_norm(true);
  config.mutable_critic()->set_dropout(0.1);
  return config;
}

TEST(SacTest, ARestoredOneGoesOnBitByBit) {
  const auto first = MakeSac(EverythingOn(), 1, torch::kFloat32);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(first->Step(RandomBatch(i, torch::kFloat32)).ok());
  const auto saved = first->Save();
  ASSERT_TRUE(saved.ok()) << saved.status();

  const auto second = MakeSac(EverythingOn(), 99, torch::kFloat32);
  const absl::Status status = second->Load(*saved);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(second->updates(), 5);
  for (int i = 5; i < 12; ++i) {
    ASSERT_TRUE(first->Step(RandomBatch(i, torch::kFloat32)).ok());
    ASSERT_TRUE(second->Step(RandomBatch(i, torch::kFloat32)).ok());
  }
  EXPECT_EQ(*first->Save(), *second->Save());
  EXPECT_NE(first->Save()->at("model.safetensors"), saved->at("model.safetensors"));
}

TEST(SacTest, TheSameSeedGivesTheSameNetworksAndAnotherGivesOthers) {
  EXPECT_EQ(*MakeSac(SmallConfig(), 5)->Save(), *MakeSac(SmallConfig(), 5)->Save());
  EXPECT_NE(*MakeSac(SmallConfig(), 5)->Save(), *MakeSac(SmallConfig(), 6)->Save());
}

TEST(SacTest, ACheckpointOfOtherNetworksIsRefusedNamingTheTensor) {
  proto::Sac wide = SmallConfig();
  wide.mutable_critic()->set_hidden_sizes(0, kHidden + 1);
  const absl::Status status = MakeSac(wide)->Load(*MakeSac(SmallConfig())->Save());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("model.safetensors"));
  EXPECT_THAT(status.message(), HasSubstr("'critic.hidden.0.weight' FLOAT64[2,5,5], expected"));
}

TEST(SacTest, ACheckpointWithoutAFileIsRefusedNamingIt) {
  for (const char* name :
       {"model.safetensors", "optimizer_state.safetensors", "rng_state.safetensors"}) {
    auto files = *MakeSac(SmallConfig())->Save();
    files.erase(name);
    EXPECT_THAT(MakeSac(SmallConfig())->Load(files).message(), HasSubstr(name));
  }
}

// Rewards are -(a - 0.6 s)^2: the policy must find the slope.
TEST(SacTest, LearnsAOneStepTask) {
  proto::Sac config = SmallConfig();
  config.set_gamma(0);
  config.set_target_entropy_scale(3);
  const auto sac = MakeSac(config, 3, torch::kFloat32);
  const torch::TensorOptions options = torch::kFloat32;
  torch::manual_seed(1);
  for (int i = 0; i < 1500; ++i) {
    const Tensor s = torch::rand({64, kStates}, options) * 2 - 1;
    const Tensor a = torch::rand({64, kActions}, options) * 2 - 1;
    const Tensor r = -(a - 0.6 * s.narrow(1, 0, kActions)).square().sum(1);
    const Tensor zeros = torch::zeros({64}, options);
    ASSERT_TRUE(sac->Step({.s = s, .a = a, .r = r, .gamma = zeros, .d = zeros, .s_next = s}).ok());
  }
  const torch::NoGradGuard no_grad;
  at::Generator generator = NextGenerator(*sac);
  const Tensor s = torch::rand({256, kStates}, options) * 2 - 1;
  const Tensor error = sac->actor().Sample(s, generator).action - 0.6 * s.narrow(1, 0, kActions);
  EXPECT_LT(error.square().mean().item<double>(), 0.02);
}

}  // namespace
}  // namespace troupe
