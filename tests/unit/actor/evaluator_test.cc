#include "actor/evaluator.h"

#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "actor/run_evaluator.h"
#include "common/crc32c.h"
#include "common/policy_codec.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

TEST(Statistics, AreThoseOfThePopulation) {
  EXPECT_DOUBLE_EQ(Mean({1, 2, 6}), 3);
  EXPECT_DOUBLE_EQ(StandardDeviation({2, 4}), 1);
}

// Lasts `seed % 5 + 1` steps and pays 1 a step, or what the action is.
class CountingEnv final : public Env {
 public:
  explicit CountingEnv(std::multiset<uint64_t>* seeds, bool pays_action = false)
      : seeds_(seeds), pays_action_(pays_action) {
    spec_ = {.id = "Counting-v0",
             .observation_size = 2,
             .action_size = 1,
             .action_low = {-1},
             .action_high = {1}};
  }
  const EnvSpec& spec() const override { return spec_; }
  void Reset(uint64_t seed, absl::Span<double> observation) override {
    seeds_->insert(seed);
    left_ = static_cast<int>(seed % 5) + 1;
    observation[0] = observation[1] = left_;
  }
  StepResult Step(absl::Span<const double> action, absl::Span<double> observation) override {
    observation[0] = observation[1] = --left_;
    return {.reward = pays_action_ ? action[0] : 1, .terminated = left_ == 0};
  }
  absl::Status ResetToState(absl::Span<const double>, absl::Span<double>) override {
    return absl::UnimplementedError("a test needs no states");
  }

 private:
  std::multiset<uint64_t>* const seeds_;
  const bool pays_action_;
  EnvSpec spec_;
  int left_ = 0;
};

std::unique_ptr<Policy> SmallPolicy(const proto::Recurrence& recurrence = {}) {
  PolicyMetadata metadata{.run = "test", .version = 1, .observation_size = 2, .action_size = 1};
  metadata.action_low = {-1};
  metadata.action_high = {1};
  metadata.network.add_hidden_sizes(4);
  metadata.log_std_min = -5;
  metadata.log_std_max = 2;
  metadata.recurrence = recurrence;
  FlatParameters actor(PolicyParameters(metadata), torch::kFloat32);
  actor.Initialize(1);
  Snapshot snapshot{.run = "test", .version = 1};
  snapshot.image = *EncodePolicy(metadata, actor);
  snapshot.crc32c = Crc32c(0, snapshot.image.data(), snapshot.image.size());
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::FromSnapshot(snapshot);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

class EvaluatorTest : public testing::Test {
 protected:
  Evaluator MakeEvaluator(int num_envs, uint64_t seed, bool pays_action = false) {
    std::vector<std::unique_ptr<Env>> envs;
    for (int i = 0; i < num_envs; ++i) {
      envs.push_back(std::make_unique<CountingEnv>(&seeds_, pays_action));
    }
    return Evaluator(std::move(envs), seed);
  }

  const std::unique_ptr<Policy> policy_ = SmallPolicy();
  std::multiset<uint64_t> seeds_;  // of every episode that began
};

TEST_F(EvaluatorTest, CountsEveryEpisodeThatBeginsExactlyOnce) {
  // Seeds 0 to 6: lengths 1 2 3 4 5 1 2, whatever environment plays them.
  for (const int num_envs : {1, 2, 3, 7}) {
    seeds_.clear();
    const auto results = MakeEvaluator(num_envs, 0).Play(*policy_, 7, [] { return false; });
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_EQ(results->lengths, (std::vector<int64_t>{1, 2, 3, 4, 5, 1, 2})) << num_envs;
    EXPECT_EQ(results->returns, (std::vector<double>{1, 2, 3, 4, 5, 1, 2})) << num_envs;
    EXPECT_EQ(seeds_.size(), 7u);
  }
}

TEST_F(EvaluatorTest, NeverPlaysTheSameSeedTwice) {
  Evaluator evaluator = MakeEvaluator(2, 100);
  ASSERT_TRUE(evaluator.Play(*policy_, 4, [] { return false; }).ok());
  ASSERT_TRUE(evaluator.Play(*policy_, 4, [] { return false; }).ok());
  EXPECT_EQ(std::set<uint64_t>(seeds_.begin(), seeds_.end()).size(), 8u);
}

TEST_F(EvaluatorTest, WhatIsRememberedBelongsToOneEpisode) {
  proto::Recurrence recurrence;
  recurrence.set_kind(proto::LSTM);
  recurrence.set_units(3);
  const auto policy = SmallPolicy(recurrence);
  const auto returns = [&](int num_envs) {
    return MakeEvaluator(num_envs, 0, /*pays_action=*/true)
        .Play(*policy, 9, [] { return false; })
        ->returns;
  };
  const std::vector<double> alone = returns(1);
  EXPECT_NE(alone[0], alone[2]);
  EXPECT_NEAR(alone[1], alone[6], 1e-6);  // both of two steps
  for (const int num_envs : {2, 3, 9}) {
    const std::vector<double> together = returns(num_envs);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(together[i], alone[i], 1e-6) << i;
  }
}

TEST_F(EvaluatorTest, StopsInTheMiddleOfAnEpisode) {
  int steps = 0;
  const auto results = MakeEvaluator(1, 4).Play(*policy_, 1, [&] { return ++steps == 3; });
  EXPECT_EQ(results.status().code(), absl::StatusCode::kCancelled);
}

// Nobody waits for it, and the others have steps to make.
TEST(RunEvaluatorTest, GivesWayToOthers) {
  proto::Config defaults;
  defaults.mutable_environment()->set_id("Pendulum-v1");
  StopToken stop;
  Metrics metrics("troupe-actor");
  stop.Request();
  std::thread([&] {
    const int before = getpriority(PRIO_PROCESS, 0);
    EXPECT_TRUE(RunEvaluator({.environment = defaults.environment(),
                              .asset_dir = DefaultAssetDir(),
                              .evaluator = defaults.evaluator(),
                              .output_dir = testing::TempDir(),
                              .snapshots = {.shards = {"127.0.0.1:1"}, .run = "test"}},
                             stop, metrics)
                    .ok());
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), std::min(before + 10, 19));
  }).join();
}

}  // namespace
}  // namespace troupe
