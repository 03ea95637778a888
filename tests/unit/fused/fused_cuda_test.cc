// The GPU engine against the CPU engine, which fused_sac_test holds against the reference's
// autograd.  Compiled twice: for a GPU, and for this machine in the place of one (gpu_on_host).
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/random_sac.h"

namespace troupe {

namespace {

#ifdef TROUPE_GPU_ON_HOST
constexpr bool kOnHost = true;  // which takes a thousand times longer
#else
constexpr bool kOnHost = false;
#endif

struct CudaCase {
  friend void PrintTo(const CudaCase& c, std::ostream* out) { *out << c.name; }
  std::string name;
  SacModel model;
  CudaOptions options;
};

SacModel ModelOf(int64_t observation, int64_t action, std::vector<int64_t> hidden, int64_t batch) {
  SacModel model;
  model.observation_size = observation;
  model.action_size = action;
  model.actor_hidden = hidden;
  model.critic_hidden = hidden;
  model.batch_size = batch;
  model.target_entropy = -static_cast<float>(action);
  model.actor_learning_rate = model.critic_learning_rate = model.alpha_learning_rate = 1e-3f;
  return model;
}

SacModel NormedModelOf(int64_t observation, int64_t action, std::vector<int64_t> hidden,
                       int64_t batch) {
  SacModel model = ModelOf(observation, action, std::move(hidden), batch);
  model.actor_layer_norm = model.critic_layer_norm = true;
  return model;
}

// ReLU and smooth units: after ten updates in tf32 a ReLU's kinks matter more than the products do,
// the deeper the network the more, so the deep one has none.
void AddNormCases(std::vector<CudaCase>& cases) {
  cases.push_back({"NormOfOneLayer", NormedModelOf(3, 1, {20}, 16), {}});
  SacModel model = NormedModelOf(7, 2, {64, 100, 64}, 20);
  model.actor_unit = HiddenUnit::kTanh;
  model.critic_unit = HiddenUnit::kElu;
  cases.push_back({"NormOfThreeLayers", model, {}});
  model = NormedModelOf(5, 3, {33, 70}, 37);
  for (const int size : {1, 2, 4}) {
    cases.push_back(
        {"NormInClustersOf" + std::to_string(size), model, {.cluster_size = size, .parts = size}});
  }
  model = NormedModelOf(5, 3, {40}, 150);  // more tiles of rows than warps that add them up
  model.critic_layer_norm = false;
  cases.push_back({"NormOfTheActor", model, {}});
  std::swap(model.actor_layer_norm, model.critic_layer_norm);
  cases.push_back({"NormOfTheCritics", model, {}});
}

std::vector<CudaCase> AllCases() {
  std::vector<CudaCase> cases = {
      {"OddSizes", ModelOf(5, 3, {33, 70}, 37), {}},
      {"OneLayer", ModelOf(3, 1, {64}, 16), {}},
      {"FourLayers", ModelOf(11, 3, {64, 128, 64, 64}, kOnHost ? 20 : 100), {}},
      {"ManyActions", ModelOf(24, 40, {128, 128}, kOnHost ? 20 : 64), {}},
  };
  if (!kOnHost) {
    cases.push_back({"HalfCheetah", ModelOf(17, 6, {256, 256}, 256), {}});
    cases.push_back({"Humanoid", ModelOf(348, 17, {256, 256}, 256), {}});
    cases.push_back({"LargeBatch", ModelOf(17, 6, {256, 256}, 2048), {}});
  }
  const std::vector<int64_t> three =
      kOnHost ? std::vector<int64_t>{64, 64, 64} : std::vector<int64_t>{256, 256, 256};
  const std::vector<int64_t> two(three.begin(), three.begin() + 2);
  for (const int size : {1, 2, 4}) {
    cases.push_back({"ClusterOf" + std::to_string(size),
                     ModelOf(17, 6, three, kOnHost ? 32 : 64),
                     {.cluster_size = size}});
    cases.push_back({"PartsOf" + std::to_string(size),
                     ModelOf(17, 6, two, kOnHost ? 70 : 500),
                     {.parts = size}});
  }
  cases.push_back(
      {"OneAfterTheOther", ModelOf(17, 6, two, kOnHost ? 32 : 256), {.overlap = false}});
  SacModel model = ModelOf(17, 6, {64, 64}, 64);
  model.actor_unit = HiddenUnit::kTanh;
  model.critic_unit = HiddenUnit::kElu;
  cases.push_back({"TanhAndElu", model, {}});
  model.actor_update_interval = 3;
  model.actor_uses_mean_critic = true;
  model.backup_entropy = false;
  cases.push_back({"LikeRedq", model, {}});
  model.has_entropy = model.automatic_temperature = false;
  cases.push_back({"NoEntropy", model, {}});
  AddNormCases(cases);
  return cases;
}

class FusedCuda : public testing::TestWithParam<std::tuple<CudaCase, bool>> {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
    CudaOptions options = test_case().options;
    options.exact = exact();
    auto cuda = MakeCudaSacEngine(test_case().model, options);
    ASSERT_TRUE(cuda.ok()) << cuda.status();
    cuda_ = *std::move(cuda);
    cpu_ = MakeCpuSacEngine(test_case().model, 1);
    const SacState state = random_.State();
    ASSERT_TRUE(cuda_->Load(state).ok());
    ASSERT_TRUE(cpu_->Load(state).ok());
  }

  const CudaCase& test_case() const { return std::get<0>(GetParam()); }
  bool exact() const { return std::get<1>(GetParam()); }

  void ExpectNear(double tolerance, double exact_tolerance) const {
    const auto cuda = cuda_->Save(), cpu = cpu_->Save();
    ASSERT_TRUE(cuda.ok()) << cuda.status();
    const double most = exact() ? exact_tolerance : tolerance;
    EXPECT_LT(Distance(cuda->critics.m, cpu->critics.m), most);
    EXPECT_LT(Distance(cuda->critics.values, cpu->critics.values), most);
    EXPECT_LT(Distance(cuda->target_critics, cpu->target_critics), most);
    EXPECT_LT(Distance(cuda->actor.m, cpu->actor.m), 20 * most);
    EXPECT_LT(Distance(cuda->actor.values, cpu->actor.values), most);
    EXPECT_NEAR(cuda->log_alpha.values[0], cpu->log_alpha.values[0], most);
    EXPECT_EQ(cuda->updates, cpu->updates);
    EXPECT_EQ(cuda->actor.steps, cpu->actor.steps);
    EXPECT_EQ(cuda->critics.steps, cpu->critics.steps);
    EXPECT_EQ(cuda->log_alpha.steps, cpu->log_alpha.steps);
    const auto a = cuda_->Statistics(), b = cpu_->Statistics();
    ASSERT_TRUE(a.ok());
    EXPECT_NEAR(a->q_loss, b->q_loss, 10 * most * (1 + std::abs(b->q_loss)));
    EXPECT_NEAR(a->q_mean, b->q_mean, 10 * most * (1 + std::abs(b->q_mean)));
    EXPECT_NEAR(a->actor_loss, b->actor_loss, 10 * most * (1 + std::abs(b->actor_loss)));
    EXPECT_NEAR(a->entropy, b->entropy, 10 * most * (1 + std::abs(b->entropy)));
    RecordProperty("critic_gradient", std::to_string(Distance(cuda->critics.m, cpu->critics.m)));
    RecordProperty("actor_gradient", std::to_string(Distance(cuda->actor.m, cpu->actor.m)));
  }

  RandomSac random_{std::get<0>(GetParam()).model};
  std::unique_ptr<SacEngine> cuda_, cpu_;
};

// Adam's first moments are a tenth of the gradients then.
TEST_P(FusedCuda, HasTheGradientsOfTheCpuEngine) {
  for (int i = 0; i < test_case().model.actor_update_interval; ++i) {
    const RandomSac::Batch batch = random_.MakeBatch();
    ASSERT_TRUE(cuda_->Update(batch.View()).ok());
    ASSERT_TRUE(cpu_->Update(batch.View()).ok());
  }
  ExpectNear(6e-3, 5e-4);
}

TEST_P(FusedCuda, AgreesAfterTenUpdatesFromAReplica) {
  const SacModel& model = test_case().model;
  const ReplicaShape shape{.capacity = 1000,
                           .observation_size = model.observation_size,
                           .action_size = model.action_size};
  for (SacEngine* engine : {cuda_.get(), cpu_.get()}) {
    RandomSac random(model, 7);
    const auto replica = engine->MakeReplica(shape);
    ASSERT_TRUE(replica.ok()) << replica.status();
    ASSERT_TRUE(random.Fill(**replica).ok());
    ASSERT_TRUE(engine->UpdateFromReplica(9).ok());
    ASSERT_TRUE((*replica)->SetRange(500, 700).ok());
    ASSERT_TRUE(engine->UpdateFromReplica(1).ok());
  }
  ExpectNear(2e-2, 1e-3);
}

TEST_P(FusedCuda, TakesThePolicyAsItWasWhileUpdatesGoOn) {
  constexpr int kRounds = kOnHost ? 1 : 3, kUpdates = kOnHost ? 2 : 20;
  const SacModel& model = test_case().model;
  const auto replica = cuda_->MakeReplica({.capacity = 512,
                                           .observation_size = model.observation_size,
                                           .action_size = model.action_size});
  ASSERT_TRUE(replica.ok()) << replica.status();
  ASSERT_TRUE(random_.Fill(**replica).ok());
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(cuda_->UpdateFromReplica(kUpdates).ok());
    const auto then = cuda_->ActorParameters();
    ASSERT_TRUE(cuda_->TakeActor());
    ASSERT_TRUE(cuda_->UpdateFromReplica(kUpdates).ok());
    const auto taken = cuda_->TakenActor();
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(*taken, *then);
    EXPECT_NE(*taken, *cuda_->ActorParameters());
  }
}

TEST_P(FusedCuda, GivesTheSameBitsEveryTime) {
  const SacModel& model = test_case().model;
  const auto start = cuda_->Save();
  ASSERT_TRUE(start.ok());
  std::vector<SacState> ends;
  const auto replica = cuda_->MakeReplica({.capacity = 512,
                                           .observation_size = model.observation_size,
                                           .action_size = model.action_size});
  ASSERT_TRUE(replica.ok()) << replica.status();
  ASSERT_TRUE(random_.Fill(**replica).ok());
  for (int i = 0; i < (kOnHost ? 2 : 3); ++i) {
    ASSERT_TRUE(cuda_->Load(*start).ok());
    ASSERT_TRUE(cuda_->UpdateFromReplica(kOnHost ? 9 : 100).ok());
    ends.push_back(*cuda_->Save());
    EXPECT_EQ(ends[i].actor.values, ends[0].actor.values);
    EXPECT_EQ(ends[i].critics.values, ends[0].critics.values);
  }
  EXPECT_NE(ends[0].actor.values, start->actor.values);
}

INSTANTIATE_TEST_SUITE_P(Cases, FusedCuda,
                         testing::Combine(testing::ValuesIn(AllCases()), testing::Bool()),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  (std::get<1>(info.param) ? "Exact" : "Tf32");
                         });

}  // namespace
}  // namespace troupe
