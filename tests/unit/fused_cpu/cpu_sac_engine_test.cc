// The CPU engine beside itself; fused_sac_test holds it against autograd.
#include "learner/fused/cpu/cpu_sac_engine.h"

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/fused/distance.h"
#include "tests/unit/fused/random_sac.h"

namespace troupe {
namespace {

using cpu::InstructionSet;

SacModel ModelOf(int64_t observation, int64_t action, std::vector<int64_t> hidden, int64_t batch) {
  SacModel model;
  model.observation_size = observation;
  model.action_size = action;
  model.actor_hidden = hidden;
  model.critic_hidden = std::move(hidden);
  model.batch_size = batch;
  model.target_entropy = -static_cast<float>(action);
  return model;
}

// A policy with LayerNorm and an ensemble with it, of critics of other depth.
SacModel EnsembleModel(int64_t batch) {
  SacModel model = ModelOf(7, 3, {40, 33}, batch);
  model.critic_hidden = {50, 20, 30};
  model.actor_layer_norm = model.critic_layer_norm = true;
  model.actor_unit = HiddenUnit::kTanh;
  model.num_critics = 5;
  model.target_subset = 2;
  return model;
}

void ExpectNear(const SacState& a, const SacState& b, double tolerance) {
  EXPECT_LT(Distance(a.actor.m, b.actor.m), tolerance);
  EXPECT_LT(Distance(a.critics.m, b.critics.m), tolerance);
  EXPECT_LT(Distance(a.actor.values, b.actor.values), tolerance);
  EXPECT_LT(Distance(a.critics.values, b.critics.values), tolerance);
  EXPECT_LT(Distance(a.target_critics, b.target_critics), tolerance);
  EXPECT_LT(Distance(a.log_alpha.values, b.log_alpha.values), tolerance);
  EXPECT_EQ(a.updates, b.updates);
}

SacState AfterUpdates(SacEngine& engine, int updates) {
  RandomSac random(engine.model());
  EXPECT_TRUE(engine.Load(random.State()).ok());
  const auto replica = engine.MakeReplica({.capacity = 1000,
                                           .observation_size = engine.model().observation_size,
                                           .action_size = engine.model().action_size});
  EXPECT_TRUE(random.Fill(**replica).ok());
  EXPECT_TRUE(engine.UpdateFromReplica(updates).ok());
  return *engine.Save();
}

class CpuSacEngineTest : public testing::TestWithParam<std::tuple<int, InstructionSet>> {
 protected:
  void SetUp() override {
    kernels_ = cpu::KernelsFor(std::get<1>(GetParam()));
    if (kernels_ == nullptr) GTEST_SKIP() << "this machine has not got these instructions";
  }
  int threads() const { return std::get<0>(GetParam()); }

  const cpu::Kernels* kernels_ = nullptr;
};

TEST_P(CpuSacEngineTest, ThreadsAndInstructionsChangeRoundingAlone) {
  for (const SacModel& model : {ModelOf(17, 6, {64, 64}, 256), ModelOf(5, 1, {33}, 20),
                                ModelOf(3, 2, {16, 70, 8}, 300), EnsembleModel(150)}) {
    const auto plain = MakeCpuSacEngine(model, 1, *cpu::KernelsFor(InstructionSet::kPortable));
    const auto engine = MakeCpuSacEngine(model, threads(), *kernels_);
    ExpectNear(AfterUpdates(*engine, 2), AfterUpdates(*plain, 2), 1e-5);
  }
}

TEST_P(CpuSacEngineTest, GivesTheSameBitsEveryTime) {
  const SacModel model = EnsembleModel(100);
  const SacState first = AfterUpdates(*MakeCpuSacEngine(model, threads(), *kernels_), 50);
  const SacState second = AfterUpdates(*MakeCpuSacEngine(model, threads(), *kernels_), 50);
  EXPECT_EQ(first.actor.values, second.actor.values);
  EXPECT_EQ(first.critics.v, second.critics.v);
  EXPECT_EQ(first.target_critics, second.target_critics);
  EXPECT_EQ(first.log_alpha.values, second.log_alpha.values);
}

TEST_P(CpuSacEngineTest, GivesBackTheStateThatItWasGiven) {
  const SacModel model = EnsembleModel(64);
  const auto engine = MakeCpuSacEngine(model, threads(), *kernels_);
  const SacState state = AfterUpdates(*MakeCpuSacEngine(model, 1, *kernels_), 3);
  ASSERT_TRUE(engine->Load(state).ok());
  const SacState again = *engine->Save();
  EXPECT_EQ(again.actor.values, state.actor.values);
  EXPECT_EQ(again.actor.m, state.actor.m);
  EXPECT_EQ(again.critics.values, state.critics.values);
  EXPECT_EQ(again.critics.v, state.critics.v);
  EXPECT_EQ(again.target_critics, state.target_critics);
  EXPECT_EQ(again.critics.steps, 3);
  EXPECT_EQ(again.updates, 3);
  EXPECT_EQ(*engine->ActorParameters(), state.actor.values);
}

std::string CaseName(const testing::TestParamInfo<std::tuple<int, InstructionSet>>& info) {
  const char* const sets[] = {"Portable", "Avx2", "Avx512"};
  return std::to_string(std::get<0>(info.param)) + "Threads" +
         sets[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(Engines, CpuSacEngineTest,
                         testing::Combine(testing::Values(1, 2, 5),
                                          testing::Values(InstructionSet::kPortable,
                                                          InstructionSet::kAvx2,
                                                          InstructionSet::kAvx512)),
                         CaseName);

}  // namespace
}  // namespace troupe
