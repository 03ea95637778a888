// Updates that ranks share against those of one learner with the whole batch.

#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/sac.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/random_sac.h"
#include "tests/unit/learner/rows.h"
#include "tests/unit/ranks/run_ranks.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int kUpdates = 10;

SacModel Model() {
  return {.observation_size = 5,
          .action_size = 2,
          .actor_hidden = {24, 16},
          .critic_hidden = {32, 24},
          .critic_layer_norm = true,
          .num_critics = 3,
          .target_subset = 2,
          .batch_size = 96,
          .actor_learning_rate = 1e-3f,
          .critic_learning_rate = 1e-3f,
          .target_entropy = -2};
}

void ExpectSameState(const SacState& a, const SacState& b) {
  EXPECT_EQ(a.actor.values, b.actor.values);
  EXPECT_EQ(a.actor.m, b.actor.m);
  EXPECT_EQ(a.critics.values, b.critics.values);
  EXPECT_EQ(a.critics.v, b.critics.v);
  EXPECT_EQ(a.target_critics, b.target_critics);
  EXPECT_EQ(a.log_alpha.values, b.log_alpha.values);
}

void ExpectNear(const SacState& a, const SacState& b) {
  EXPECT_LT(Distance(a.actor.values, b.actor.values), 1e-5);
  EXPECT_LT(Distance(a.critics.values, b.critics.values), 1e-5);
  EXPECT_LT(Distance(a.target_critics, b.target_critics), 1e-5);
  EXPECT_NEAR(a.log_alpha.values[0], b.log_alpha.values[0], 1e-5);
}

// Of each rank of 2, and last of the one that is alone.
struct Outcome {
  SacState state;
  SacStatistics statistics;
};

void ExpectAsOne(const std::vector<Outcome>& outcomes) {
  ExpectSameState(outcomes[0].state, outcomes[1].state);
  ExpectNear(outcomes[0].state, outcomes[2].state);
  const SacStatistics &shared = outcomes[0].statistics, &whole = outcomes[2].statistics;
  EXPECT_NEAR(shared.q_loss, whole.q_loss, 1e-4);
  EXPECT_NEAR(shared.actor_loss, whole.actor_loss, 1e-4);
  EXPECT_NEAR(shared.entropy, whole.entropy, 1e-4);
}

TEST(SharedUpdateTest, RanksOfTheFusedEngineAreOneLearnerWithTheirBatches) {
  const SacModel model = Model();
  RandomSac random(model);
  const SacState begin = random.State();
  std::vector<RandomSac::Batch> batches;
  for (int i = 0; i < kUpdates; ++i) batches.push_back(random.MakeBatch());
  std::vector<Outcome> outcomes(3);
  const auto learn = [&](SacEngine& engine, int64_t first, int64_t rows, Outcome& outcome) {
    ASSERT_TRUE(engine.Load(begin).ok());
    for (const RandomSac::Batch& batch : batches) {
      SacBatch share = batch.View();
      share.transitions = share.transitions.subspan(first, rows);
      ASSERT_TRUE(engine.Update(share).ok());
    }
    outcome = {*engine.Save(), *engine.Statistics()};
  };
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    // The threads of a rank, too, share its rows.
    const auto engine = MakeCpuSacEngine(model, 2, cpu::BestKernels(), ranks.get());
    learn(*engine, 48 * ranks->rank(), 48, outcomes[ranks->rank()]);
  });
  learn(*MakeCpuSacEngine(model), 0, 96, outcomes[2]);
  ExpectAsOne(outcomes);
}

TEST(SharedUpdateTest, RanksThatDrawFromEqualReplicasAreOneLearner) {
  const SacModel model = Model();
  const SacState begin = RandomSac(model).State();
  std::vector<Outcome> outcomes(3);
  const auto learn = [&](SacEngine& engine, Outcome& outcome) {
    ASSERT_TRUE(engine.Load(begin).ok());
    const auto replica =
        engine.MakeReplica({.capacity = 512, .observation_size = 5, .action_size = 2});
    ASSERT_TRUE(replica.ok()) << replica.status();
    ASSERT_TRUE(RandomSac(model, 3).Fill(**replica).ok());
    ASSERT_TRUE(engine.UpdateFromReplica(kUpdates).ok());
    outcome = {*engine.Save(), *engine.Statistics()};
  };
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    const auto engine = MakeCpuSacEngine(model, 1, cpu::BestKernels(), ranks.get());
    learn(*engine, outcomes[ranks->rank()]);
  });
  learn(*MakeCpuSacEngine(model), outcomes[2]);
  ExpectAsOne(outcomes);
}

TEST(SharedUpdateTest, ARankThatIsGoneEndsTheUpdateOfTheOthers) {
  const SacModel model = Model();
  absl::Status status;
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    RandomSac random(model);
    const auto engine = MakeCpuSacEngine(model, 1, cpu::BestKernels(), ranks.get());
    ASSERT_TRUE(engine->Load(random.State()).ok());
    const RandomSac::Batch batch = random.MakeBatch();
    SacBatch share = batch.View();
    share.transitions = share.transitions.subspan(0, 48);
    if (ranks->rank() == 1) return;
    for (int i = 0; i < 1000 && status.ok(); ++i) status = engine->Update(share);
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

// What a rank of Sac has learned: all its parameters.
std::vector<float> Parameters(Sac& sac) {
  const Tensor all =
      torch::cat({sac.actor().parameters().values(), sac.critics().parameters().values(),
                  sac.target_critics().parameters().values(), sac.log_alpha()})
          .detach();
  return {all.data_ptr<float>(), all.data_ptr<float>() + all.numel()};
}

TEST(SharedUpdateTest, RanksOfTheReferenceAreOneLearnerWithTheirBatches) {
  proto::Sac config;
  config.set_batch_size(16);
  for (proto::Mlp* mlp : {config.mutable_actor(), config.mutable_critic()}) {
    mlp->add_hidden_sizes(16);
  }
  config.set_num_critics(3);
  config.set_min_subset(2);
  const Layout layout = MakeLayout(3, {-2, -2}, {1, 1});
  torch::manual_seed(1);
  std::vector<Transitions> batches;
  for (int i = 0; i < kUpdates; ++i) {
    batches.push_back({.s = torch::randn({32, 3}),
                       .a = torch::rand({32, 2}) * 2 - 1,
                       .r = torch::randn({32}),
                       .gamma = torch::full({32}, 0.99f),
                       .d = torch::zeros({32}),
                       .s_next = torch::randn({32, 3})});
  }
  std::vector<std::vector<float>> outcomes(3);
  const auto learn = [&](RankGroup* ranks, int64_t first, int64_t rows, std::vector<float>& out) {
    const auto sac = Sac::Create({.config = config, .ranks = ranks}, layout);
    ASSERT_TRUE(sac.ok()) << sac.status();
    for (const Transitions& b : batches) {
      const auto share = [&](const Tensor& all) { return all.narrow(0, first, rows); };
      const absl::Status status = (*sac)->Step({.s = share(b.s),
                                                .a = share(b.a),
                                                .r = share(b.r),
                                                .gamma = share(b.gamma),
                                                .d = share(b.d),
                                                .s_next = share(b.s_next)});
      ASSERT_TRUE(status.ok()) << status;
    }
    out = Parameters(**sac);
  };
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    learn(ranks.get(), 16 * ranks->rank(), 16, outcomes[ranks->rank()]);
  });
  learn(nullptr, 0, 32, outcomes[2]);
  EXPECT_EQ(outcomes[0], outcomes[1]);
  EXPECT_LT(Distance(outcomes[0], outcomes[2]), 1e-5);
}

}  // namespace
}  // namespace troupe
