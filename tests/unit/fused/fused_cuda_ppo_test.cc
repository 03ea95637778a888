// PPO's engine for GPUs against the CPU's, which ppo_engine_test holds against autograd.  Compiled
// twice: for a GPU, and for this machine in the place of one (gpu_on_host).
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/fused/cuda_ppo_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/random_ppo.h"

namespace troupe {
namespace {

struct PpoCase {
  friend void PrintTo(const PpoCase& c, std::ostream* out) { *out << c.name; }
  std::string name;
  int64_t observation, action;
  std::vector<int64_t> hidden;
  int64_t rows, minibatches;
  double max_kl = 0;
};

class FusedCudaPpo : public testing::TestWithParam<PpoCase> {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  }

  PpoModel Model() const {
    const PpoCase& c = GetParam();
    PpoModel model = MakePpoModel(c.max_kl);
    model.actor = MakeFlatNetwork(1, c.observation, c.hidden, c.action);
    model.critic = MakeFlatNetwork(1, c.observation, c.hidden, 1);
    return model;
  }

  // `rows` steps, the same for all engines, by one of them.
  static PpoProgress Improve(PpoEngine& engine, int64_t rows) {
    const PpoCase& c = GetParam();
    const auto progress =
        RandomPpo(rows)
            .MakeBatch(rows, c.observation, c.action, -1.4f * static_cast<float>(c.action),
                       /*epochs=*/2, c.minibatches)
            .Improve(engine);
    EXPECT_TRUE(progress.ok()) << progress.status();
    return progress.value_or(PpoProgress());
  }
};

TEST_P(FusedCudaPpo, AgreesWithTheCpuEngineBatchAfterBatch) {
  const PpoModel model = Model();
  auto cuda = MakeCudaPpoEngine(model, 0);
  ASSERT_TRUE(cuda.ok()) << cuda.status();
  const auto cpu = MakeCpuPpoEngine(model);
  RandomPpo random;
  PpoVectors actor = random.Begin(model.actor.size + GetParam().action),
             critic = random.Begin(model.critic.size);
  PpoVectors actor_here = actor, critic_here = critic;
  ASSERT_TRUE((*cuda)->Load(actor.View(), critic.View()).ok());
  ASSERT_TRUE(cpu->Load(actor_here.View(), critic_here.View()).ok());
  // A smaller batch uses the graph of the first, a larger one makes another.
  for (const int64_t rows : {GetParam().rows, GetParam().rows - 3, GetParam().rows + 20}) {
    const PpoProgress ours = Improve(**cuda, rows), theirs = Improve(*cpu, rows);
    EXPECT_EQ(ours.steps, theirs.steps);
    EXPECT_NEAR(ours.kl, theirs.kl, 1e-3 * (1 + std::abs(theirs.kl)));
    EXPECT_NEAR(ours.value_loss, theirs.value_loss, 1e-3 * (1 + theirs.value_loss));
    EXPECT_NEAR(ours.entropy, theirs.entropy, 1e-3 * (1 + std::abs(theirs.entropy)));
  }
  DescendedFloats to_actor = actor.View(), to_critic = critic.View();
  ASSERT_TRUE((*cuda)->Store(to_actor, to_critic).ok());
  DescendedFloats to_actor_here = actor_here.View(), to_critic_here = critic_here.View();
  ASSERT_TRUE(cpu->Store(to_actor_here, to_critic_here).ok());
  EXPECT_EQ(to_actor.steps, to_actor_here.steps);
  EXPECT_LE(Distance(actor.values, actor_here.values), 1e-3);
  EXPECT_LE(Distance(critic.values, critic_here.values), 1e-3);
  EXPECT_LE(Distance(actor.m, actor_here.m), 2e-2);
  EXPECT_LE(Distance(critic.m, critic_here.m), 2e-2);
}

INSTANTIATE_TEST_SUITE_P(Cases, FusedCudaPpo,
                         testing::Values(PpoCase{"Small", 3, 1, {16}, 40, 2},
                                         PpoCase{"HalfCheetah", 17, 6, {64, 64}, 128, 2},
                                         PpoCase{"OddSizes", 5, 3, {33, 7}, 61, 3},
                                         PpoCase{
                                             "StopsWhereItIsTooFar", 5, 3, {33, 7}, 61, 3, 0.5}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
