#include "learner/ppo.h"

#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/policy.h"
#include "common/snapshot.h"
#include "gtest/gtest.h"
#include "tests/unit/learner/ppo_rows.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int kStates = 3;
constexpr int64_t kLength = 16, kWindows = 4;

proto::Ppo SmallConfig() {
  proto::Ppo config;
  config.set_unroll_length(kLength);
  config.set_batch_windows(kWindows);
  config.set_epochs(3);
  config.set_minibatch_size(16);
  config.set_learning_rate(3e-3);
  return config;
}

std::unique_ptr<Ppo> MakePpo(const proto::Ppo& config, const Layout& layout) {
  return Ppo::Create({.config = config, .total_env_steps = 1000, .seed = 1}, layout).value();
}

std::unique_ptr<Policy> Publish(const Ppo& ppo, uint64_t version = 1) {
  const std::string image = ppo.EncodePolicy({.run = "r", .version = version}).value();
  auto policy = Policy::FromSnapshot({.run = "r", .version = version, .image = image});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

// What reward an action earns.
using Reward = std::function<float(const PpoRow&)>;

float NoReward(const PpoRow&) { return 0; }

// A batch that `policy` collected: random observations, an episode that ends in each window.
std::vector<PpoRow> Collect(Policy& policy, uint64_t seed, const Reward& reward = NoReward) {
  const bool discrete = policy.metadata().distribution == Distribution::kCategorical;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(2, 3);
  policy.Seed(seed);
  std::vector<PpoRow> rows;
  for (int64_t i = 0; i < kWindows * (kLength + 1); ++i) {
    const int64_t t = i % (kLength + 1);
    PpoRow row;
    for (int j = 0; j < kStates; ++j) row.observation.push_back(normal(random));
    if (t == kLength) row.flags = kCut;
    if (t == 5) row.flags = kTerminated;
    if (row.flags == 0) {
      std::vector<float> env(policy.metadata().action_size), drawn(env.size());
      EXPECT_TRUE(policy
                      .Sample(row.observation, 1,
                              {absl::MakeSpan(env), absl::MakeSpan(drawn),
                               absl::MakeSpan(&row.log_prob, 1)})
                      .ok());
      if (discrete) row.choices.assign(drawn.begin(), drawn.end());
      if (!discrete) row.action = drawn;
      row.reward = reward(row);
    }
    rows.push_back(row);
  }
  return rows;
}

struct PolicyCase {
  std::string name;
  Layout layout;
  bool squash;
};

void PrintTo(const PolicyCase& c, std::ostream* out) { *out << c.name; }

std::vector<PolicyCase> Cases() {
  return {{"Clipped", ContinuousLayout(kStates, {-1, -2}, {1, 6}), false},
          {"Squashed", ContinuousLayout(kStates, {-1, -2}, {1, 6}), true},
          {"Choices", DiscreteLayout(kStates, {3}), false},
          {"SeveralChoices", DiscreteLayout(kStates, {3, 2, 5}), false}};
}

class PpoPolicyTest : public testing::TestWithParam<PolicyCase> {
 protected:
  PpoPolicyTest() {
    proto::Ppo config = SmallConfig();
    config.set_squash_actions(GetParam().squash);
    ppo_ = MakePpo(config, GetParam().layout);
  }
  Ppo::Steps Prepare(const std::vector<PpoRow>& rows) {
    const std::vector<uint8_t> bytes = PackRows(GetParam().layout, rows);
    const UnrollReader reader = UnrollReader::Create(GetParam().layout, {}).value();
    return ppo_->Prepare(reader.Read(bytes.data(), kWindows, kLength + 1));
  }
  absl::Status Update(const std::vector<PpoRow>& rows) {
    return ppo_->Update(ToBatch(GetParam().layout, rows, kWindows), 0);
  }

  std::unique_ptr<Ppo> ppo_;
};

// Also after the normalizer and the networks have moved: the actor's policy and the learner's are
// the same function.
TEST_P(PpoPolicyTest, TheRatioIsOneOnTheFirstMinibatch) {
  for (uint64_t version = 1; version <= 4; ++version) {
    const std::unique_ptr<Policy> policy = Publish(*ppo_, version);
    const std::vector<PpoRow> rows = Collect(*policy, version);
    const Ppo::Steps steps = Prepare(rows);
    EXPECT_EQ(steps.s.size(0), kWindows * (kLength - 1));
    const Tensor log_pi = ppo_->actor().LogProb(ppo_->actor().Head(steps.s), steps.a).detach();
    const double off = ((log_pi - steps.log_mu).exp() - 1).abs().max().item<double>();
    EXPECT_LT(off, 2e-5) << "version " << version;
    ASSERT_TRUE(Update(rows).ok());
  }
}

TEST_P(PpoPolicyTest, GoesOnBitByBitFromItsFiles) {
  ASSERT_TRUE(Update(Collect(*Publish(*ppo_), 1)).ok());
  proto::Ppo config = SmallConfig();
  config.set_squash_actions(GetParam().squash);
  const auto other = MakePpo(config, GetParam().layout);
  const auto files = ppo_->Save().value();
  ASSERT_TRUE(other->Load(files).ok());
  EXPECT_EQ(other->updates(), ppo_->updates());
  const std::vector<PpoRow> rows = Collect(*Publish(*ppo_, 2), 2);
  ASSERT_TRUE(Update(rows).ok());
  ASSERT_TRUE(other->Update(ToBatch(GetParam().layout, rows, kWindows), 0).ok());
  EXPECT_EQ(other->Save().value(), ppo_->Save().value());
  EXPECT_NE(files, ppo_->Save().value());
}

INSTANTIATE_TEST_SUITE_P(Policies, PpoPolicyTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

class PpoTest : public testing::Test {
 protected:
  const Layout layout_ = ContinuousLayout(kStates, {-1}, {1});
  const Layout choices_ = DiscreteLayout(kStates, {3});

  static std::vector<PpoRow> Rows(const Ppo& ppo, uint64_t seed, const Reward& reward = NoReward) {
    return Collect(*Publish(ppo), seed, reward);
  }
  absl::Status Update(Ppo& ppo, const std::vector<PpoRow>& rows, int64_t env_steps = 0) {
    return ppo.Update(ToBatch(layout_, rows, kWindows), env_steps);
  }
};

// Whatever the surrogate, the choice that is rewarded becomes the usual one.
TEST_F(PpoTest, EverySurrogateLearnsWhichChoiceIsRewarded) {
  for (const proto::Surrogate surrogate :
       {proto::POLICY_GRADIENT, proto::IMPORTANCE, proto::KL_PENALTY, proto::CLIP}) {
    proto::Ppo config = SmallConfig();
    config.set_surrogate(surrogate);
    config.set_gamma(0);
    if (surrogate == proto::POLICY_GRADIENT) config.set_epochs(1);
    const auto ppo = MakePpo(config, choices_);
    const auto is_best = [](const PpoRow& row) { return row.choices[0] == 2 ? 1.0f : 0.0f; };
    const auto rate = [&](uint64_t seed) {
      double sum = 0;
      for (const PpoRow& row : Rows(*ppo, seed, is_best)) sum += row.reward;
      return sum / (kWindows * (kLength - 1));
    };
    EXPECT_LT(rate(1), 0.6);
    for (uint64_t i = 0; i < 150; ++i) {
      const auto batch = ToBatch(choices_, Rows(*ppo, i, is_best), kWindows);
      ASSERT_TRUE(ppo->Update(batch, 0).ok());
    }
    EXPECT_GT(rate(2), 0.9) << proto::Surrogate_Name(surrogate);
  }
}

TEST_F(PpoTest, MinibatchesHaveAboutTheirSizeAndCoverEveryStep) {
  proto::Ppo config = SmallConfig();
  config.set_minibatch_size(25);  // of 60 steps: two of 30
  const auto ppo = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*ppo, Rows(*ppo, 1)).ok());
  EXPECT_EQ(ppo->updates(), 2 * config.epochs());
  config.set_minibatch_size(0);
  const auto whole = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*whole, Rows(*whole, 1)).ok());
  EXPECT_EQ(whole->updates(), config.epochs());
}

TEST_F(PpoTest, TheKlBoundEndsTheEpochs) {
  const auto random = [](const PpoRow& row) { return row.action[0]; };
  proto::Ppo config = SmallConfig();
  config.set_learning_rate(0.05);
  const auto unbound = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*unbound, Rows(*unbound, 1, random)).ok());
  config.set_max_kl(0.01);
  const auto bound = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*bound, Rows(*bound, 1, random)).ok());
  EXPECT_EQ(unbound->updates(), 4 * config.epochs());
  EXPECT_LT(bound->updates(), unbound->updates());
  EXPECT_GE(bound->updates(), 1);
}

TEST_F(PpoTest, TheKlCoefficientGrowsWhenThePolicyMovesTooFar) {
  proto::Ppo config = SmallConfig();
  config.set_surrogate(proto::KL_PENALTY);
  config.set_learning_rate(0.05);
  const auto moving = [](const PpoRow& row) { return row.action[0]; };
  const auto ppo = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*ppo, Rows(*ppo, 1, moving)).ok());
  EXPECT_EQ(ppo->kl_coefficient(), 2);
  config.set_adaptive_kl_coefficient(false);
  const auto fixed = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*fixed, Rows(*fixed, 1, moving)).ok());
  EXPECT_EQ(fixed->kl_coefficient(), 1);
}

TEST_F(PpoTest, TheLearningRateFollowsItsSchedule) {
  proto::Ppo config = SmallConfig();
  config.set_learning_rate(0.01);
  config.set_learning_rate_schedule(proto::LINEAR);
  const auto linear = MakePpo(config, layout_);
  ASSERT_TRUE(Update(*linear, Rows(*linear, 1), 250).ok());
  EXPECT_NEAR(linear->learning_rate(), 0.0075, 1e-12);
  ASSERT_TRUE(Update(*linear, Rows(*linear, 2), 2000).ok());
  EXPECT_EQ(linear->learning_rate(), 0);

  config.set_learning_rate_schedule(proto::KL_ADAPTIVE);
  config.set_kl_target(1e-5);  // any step goes beyond it
  const auto adaptive = MakePpo(config, layout_);
  ASSERT_TRUE(
      Update(*adaptive, Rows(*adaptive, 1, [](const PpoRow& row) { return row.action[0]; })).ok());
  EXPECT_LT(adaptive->learning_rate(), 0.01);
}

// Otherwise a batch would be learned from with another policy than the one that drew it.
TEST_F(PpoTest, ABatchsObservationsCountForTheNextPolicy) {
  const auto ppo = MakePpo(SmallConfig(), layout_);
  const std::vector<PpoRow> rows = Rows(*ppo, 1);
  const auto mean = [&] {
    const std::string image = ppo->EncodePolicy({.run = "r", .version = 1}).value();
    const auto parsed = Safetensors::Parse(image);
    return ReadTensor(*parsed, "normalizer.mean", torch::kFloat32, {kStates})->clone();
  };
  EXPECT_TRUE(mean().equal(torch::zeros({kStates})));
  ASSERT_TRUE(Update(*ppo, rows).ok());
  for (int j = 0; j < kStates; ++j) {
    double sum = 0;
    for (const PpoRow& row : rows) sum += row.observation[j];
    EXPECT_NEAR(mean()[j].item<double>(), sum / static_cast<double>(rows.size()), 1e-5);
  }
}

TEST_F(PpoTest, RewardsAreScaledByTheSpreadOfTheirDiscountedSums) {
  proto::Ppo config = SmallConfig();
  config.set_gamma(0);  // the value target is the scaled reward, the spread that of rewards
  const auto ppo = MakePpo(config, layout_);
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal(0, 50);
  const std::vector<PpoRow> rows = Rows(*ppo, 1, [&](const PpoRow&) { return normal(random); });
  const std::vector<uint8_t> bytes = PackRows(layout_, rows);
  const UnrollReader reader = UnrollReader::Create(layout_, {}).value();
  const Unrolls unrolls = reader.Read(bytes.data(), kWindows, kLength + 1);
  ASSERT_TRUE(ppo->CountReturns(unrolls).ok());
  const Ppo::Steps steps = ppo->Prepare(unrolls);
  EXPECT_NEAR(steps.target.var(false).item<double>(), 1, 1e-3);
}

TEST_F(PpoTest, GradientsAreCutToTheirNormTogether) {
  proto::Ppo config = SmallConfig();
  config.set_epochs(1);
  config.set_minibatch_size(0);
  config.set_adam_epsilon(1);  // so that a step is about the gradient times the learning rate
  config.set_learning_rate(0.1);
  const auto moved = [&](double norm) {
    config.set_max_gradient_norm(norm);
    const auto ppo = MakePpo(config, layout_);
    const Tensor actor = ppo->actor().parameters().values().clone();
    const Tensor critic = ppo->critic().parameters().values().clone();
    EXPECT_TRUE(Update(*ppo, Rows(*ppo, 1, [](const PpoRow& row) { return row.action[0]; })).ok());
    const double a = (ppo->actor().parameters().values() - actor).norm().item<double>();
    const double c = (ppo->critic().parameters().values() - critic).norm().item<double>();
    return std::sqrt(a * a + c * c);
  };
  EXPECT_NEAR(moved(0.02) / 0.02, 0.1, 2e-3);
  EXPECT_NEAR(moved(0.01) / 0.01, 0.1, 2e-3);
  EXPECT_GT(moved(0), 2 * moved(0.02));
}

TEST_F(PpoTest, WindowsOfAnotherShapeAreRefused) {
  const auto ppo = MakePpo(SmallConfig(), layout_);
  std::vector<PpoRow> rows = Rows(*ppo, 1);
  rows.resize(rows.size() - kWindows);
  EXPECT_EQ(Update(*ppo, rows).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PpoTest, ABatchWithoutAnyStepTeachesNothing) {
  const auto ppo = MakePpo(SmallConfig(), layout_);
  const std::vector<PpoRow> rows(kWindows * (kLength + 1),
                                 {.observation = {0, 0, 0}, .flags = kCut});
  EXPECT_TRUE(Update(*ppo, rows).ok());
  EXPECT_EQ(ppo->updates(), 0);
}

}  // namespace
}  // namespace troupe
