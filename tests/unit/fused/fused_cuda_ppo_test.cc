// PPO's engine for GPUs against the CPU's, which ppo_engine_test holds against autograd.  Compiled
// twice: for a GPU, and for this machine in the place of one (gpu_on_host).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/fused/cuda_ppo_engine.h"
#include "learner/fused/cuda_sac_engine.h"

namespace troupe {
namespace {

struct Vectors {
  std::vector<float> values, m, v;
  int64_t steps = 0;

  DescendedFloats View() { return {values.data(), m.data(), v.data(), steps}; }
};

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
    PpoModel model;
    model.config.set_normalize_advantages(true);
    model.config.set_value_clip(0.3);
    model.config.set_max_gradient_norm(0.5);
    model.config.set_entropy_coefficient(0.01);
    model.config.set_max_kl(c.max_kl);
    model.actor = MakeFlatNetwork(1, c.observation, c.hidden, c.action);
    model.critic = MakeFlatNetwork(1, c.observation, c.hidden, 1);
    return model;
  }

  std::vector<float> Normal(int64_t n, float scale = 1, float shift = 0) {
    std::normal_distribution<float> distribution(shift, scale);
    std::vector<float> numbers(n);
    for (float& number : numbers) number = distribution(engine_);
    return numbers;
  }

  Vectors Begin(int64_t size) {
    return {
        .values = Normal(size, 0.2f), .m = std::vector<float>(size), .v = std::vector<float>(size)};
  }

  // `epochs` of batches of c.rows steps, or of `rows`, by one engine.
  PpoProgress Improve(PpoEngine& engine, int64_t rows, int64_t epochs) {
    const PpoCase& c = GetParam();
    engine_.seed(rows);
    const std::vector<float> s = Normal(rows * c.observation), a = Normal(rows * c.action),
                             log_mu = Normal(rows, 0.3f, -1.4f * static_cast<float>(c.action)),
                             advantage = Normal(rows), target = Normal(rows), v_old = Normal(rows);
    std::vector<int64_t> order;
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      std::vector<int64_t> one(rows);
      std::iota(one.begin(), one.end(), 0);
      std::shuffle(one.begin(), one.end(), engine_);
      order.insert(order.end(), one.begin(), one.end());
    }
    const auto progress = engine.Improve(
        {.s = s.data(),
         .a = a.data(),
         .log_mu = log_mu.data(),
         .advantage = advantage.data(),
         .target = target.data(),
         .v_old = v_old.data()},
        {.rows = rows, .epochs = epochs, .minibatches = c.minibatches, .order = order}, 1e-3);
    EXPECT_TRUE(progress.ok()) << progress.status();
    return progress.value_or(PpoProgress());
  }

  static void ExpectNear(const std::vector<float>& a, const std::vector<float>& b,
                         double tolerance) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < b.size(); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
      norm += std::pow(static_cast<double>(b[i]), 2);
    }
    EXPECT_LE(std::sqrt(difference / std::max(norm, 1e-30)), tolerance);
  }

  std::mt19937_64 engine_{1};
};

TEST_P(FusedCudaPpo, AgreesWithTheCpuEngineBatchAfterBatch) {
  const PpoModel model = Model();
  auto cuda = MakeCudaPpoEngine(model, 0);
  ASSERT_TRUE(cuda.ok()) << cuda.status();
  const auto cpu = MakeCpuPpoEngine(model);
  Vectors actor = Begin(model.actor.size + GetParam().action), critic = Begin(model.critic.size);
  Vectors actor_here = actor, critic_here = critic;
  ASSERT_TRUE((*cuda)->Load(actor.View(), critic.View()).ok());
  ASSERT_TRUE(cpu->Load(actor_here.View(), critic_here.View()).ok());
  // A smaller batch uses the graph of the first, a larger one makes another.
  for (const int64_t rows : {GetParam().rows, GetParam().rows - 3, GetParam().rows + 20}) {
    const PpoProgress ours = Improve(**cuda, rows, 2), theirs = Improve(*cpu, rows, 2);
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
  ExpectNear(actor.values, actor_here.values, 1e-3);
  ExpectNear(critic.values, critic_here.values, 1e-3);
  ExpectNear(actor.m, actor_here.m, 2e-2);
  ExpectNear(critic.m, critic_here.m, 2e-2);
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
