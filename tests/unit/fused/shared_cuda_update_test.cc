// Updates that ranks share on GPUs, executed by this machine, against those of one learner with the
// whole batch.
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/host_ranks.h"
#include "tests/unit/fused/random_sac.h"

namespace troupe {
namespace {

constexpr int kUpdates = 6;

SacModel Model() {
  return {.observation_size = 5,
          .action_size = 2,
          .actor_hidden = {24, 16},
          .critic_hidden = {32, 24},
          .batch_size = 96,
          .actor_learning_rate = 1e-3f,
          .critic_learning_rate = 1e-3f,
          .target_entropy = -2};
}

struct Outcome {
  SacState state;
  SacStatistics statistics;
};

// Of both ranks, each in a thread of its own, then of one learner, on the CPU.  `failures`: of what
// is to be captured.
std::vector<Outcome> LearnTogether(const SacModel& model, int failures,
                                   const std::function<void(SacEngine&, int rank)>& learn) {
  std::vector<Outcome> outcomes(kHostRanks + 1);
  const SacState begin = RandomSac(model).State();
  RunHostRanks({failures, failures}, [&](RankGroup& ranks) {
    const auto engine = MakeCudaSacEngine(model, {.exact = true, .updates_per_graph = 2}, &ranks);
    ASSERT_TRUE(engine.ok()) << engine.status();
    ASSERT_TRUE((*engine)->Load(begin).ok());
    learn(**engine, ranks.rank());
    outcomes[ranks.rank()] = {*(*engine)->Save(), *(*engine)->Statistics()};
  });
  const auto alone = MakeCpuSacEngine(model);
  EXPECT_TRUE(alone->Load(begin).ok());
  learn(*alone, -1);
  outcomes[kHostRanks] = {*alone->Save(), *alone->Statistics()};
  return outcomes;
}

void ExpectAsOne(const std::vector<Outcome>& outcomes) {
  const SacState &first = outcomes[0].state, &second = outcomes[1].state;
  EXPECT_EQ(first.actor.values, second.actor.values);
  EXPECT_EQ(first.actor.m, second.actor.m);
  EXPECT_EQ(first.critics.values, second.critics.values);
  EXPECT_EQ(first.critics.v, second.critics.v);
  EXPECT_EQ(first.target_critics, second.target_critics);
  EXPECT_EQ(first.log_alpha.values, second.log_alpha.values);
  const SacState& alone = outcomes[kHostRanks].state;
  EXPECT_LT(Distance(first.actor.values, alone.actor.values), 1e-4);
  EXPECT_LT(Distance(first.critics.values, alone.critics.values), 1e-4);
  EXPECT_LT(Distance(first.critics.m, alone.critics.m), 1e-3);
  EXPECT_LT(Distance(first.target_critics, alone.target_critics), 1e-4);
  EXPECT_NEAR(first.log_alpha.values[0], alone.log_alpha.values[0], 1e-4);
  EXPECT_EQ(first.updates, alone.updates);
  EXPECT_EQ(first.actor.steps, alone.actor.steps);
  const SacStatistics &shared = outcomes[0].statistics, &whole = outcomes[kHostRanks].statistics;
  EXPECT_NEAR(shared.q_loss, whole.q_loss, 1e-3);
  EXPECT_NEAR(shared.q_mean, whole.q_mean, 1e-3);
  EXPECT_NEAR(shared.actor_loss, whole.actor_loss, 1e-3);
  EXPECT_NEAR(shared.entropy, whole.entropy, 1e-3);
}

class SharedCudaUpdateTest : public testing::TestWithParam<int> {};

TEST_P(SharedCudaUpdateTest, RanksAreOneLearnerWithTheirBatches) {
  const SacModel model = Model();
  RandomSac random(model, 5);
  std::vector<RandomSac::Batch> batches;
  batches.reserve(kUpdates);
  for (int i = 0; i < kUpdates; ++i) batches.push_back(random.MakeBatch());
  batches[1].noise = random.Uniform(2 * model.batch_size * model.action_size, 1);
  ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int rank) {
    for (const RandomSac::Batch& batch : batches) {
      SacBatch share = batch.View();
      if (rank >= 0) share.transitions = share.transitions.subspan(48 * rank, 48);
      ASSERT_TRUE(engine.Update(share).ok());
    }
  }));
}

TEST_P(SharedCudaUpdateTest, RanksAreOneLearnerWithLayerNorm) {
  SacModel model = Model();
  model.actor_layer_norm = model.critic_layer_norm = true;
  ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int) {
    const auto replica =
        engine.MakeReplica({.capacity = 256, .observation_size = 5, .action_size = 2});
    ASSERT_TRUE(replica.ok()) << replica.status();
    ASSERT_TRUE(RandomSac(model, 3).Fill(**replica).ok());
    ASSERT_TRUE(engine.UpdateFromReplica(kUpdates).ok());
  }));
}

TEST_P(SharedCudaUpdateTest, RanksThatDrawFromEqualReplicasAreOneLearner) {
  SacModel model = Model();
  for (const int interval : {1, 2}) {
    model.actor_update_interval = interval;
    ExpectAsOne(LearnTogether(model, GetParam(), [&](SacEngine& engine, int) {
      const auto replica =
          engine.MakeReplica({.capacity = 256, .observation_size = 5, .action_size = 2});
      ASSERT_TRUE(replica.ok()) << replica.status();
      ASSERT_TRUE(RandomSac(model, 3).Fill(**replica).ok());
      ASSERT_TRUE(engine.UpdateFromReplica(kUpdates + 1).ok());
    }));
  }
}

// Two graphs are captured, one after another.
INSTANTIATE_TEST_SUITE_P(Captured, SharedCudaUpdateTest, testing::Values(0, 2),
                         [](const auto& info) {
                           return info.param == 0 ? "AsAGraph" : "KernelByKernel";
                         });

TEST(CudaRanksTest, RanksThatSumOnTheHostAreRefused) {
  RankOnTheHost ranks;
  const absl::Status status = MakeCudaSacEngine(Model(), {}, &ranks).status();
  EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
}

}  // namespace
}  // namespace troupe
