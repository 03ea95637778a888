// PPO's fused engines beside LibTorch, whose closed form action_distribution_test.cc compares with
// the objectives themselves: that of the CPU, and the GPU's programs, executed here.
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/safetensors.h"
#include "common/tensor_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/ppo.h"
#include "tests/unit/fused/host_ppo_machine.h"
#include "tests/unit/learner/ppo_rows.h"

namespace troupe {
namespace {

using torch::Tensor;

struct EngineCase {
  friend void PrintTo(const EngineCase& c, std::ostream* out) { *out << c.name; }
  std::string name;
  int trials;  // of those that a faster engine makes
  MakePpoEngine make;
};

std::vector<EngineCase> Engines() {
  const auto blocks_of = [](int threads) {
    return [threads](const PpoModel& model) {
      return MakeBlockPpoEngine(model, std::make_unique<HostPpoMachine>(threads));
    };
  };
  return {{"Cpu", 40, [](const PpoModel& model) { return MakeCpuPpoEngine(model); }},
          {"CpuOnTwoThreads", 20, [](const PpoModel& model) { return MakeCpuPpoEngine(model, 2); }},
          {"BlocksOfOneThread", 20, blocks_of(1)},
          {"BlocksOfThreads", 10, blocks_of(32)}};
}

class PpoEngineTest : public testing::TestWithParam<EngineCase> {
 protected:
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % n); }
  bool Toss() { return Below(2) == 1; }

  void AnyNetwork(proto::Mlp& network) {
    for (int64_t layers = 1 + Below(3); layers > 0; --layers) {
      network.add_hidden_sizes(static_cast<int32_t>(1 + Below(70)));
    }
    network.set_activation(static_cast<proto::Activation>(proto::RELU + Below(3)));
  }

  proto::Ppo AnyConfig() {
    proto::Ppo config;
    AnyNetwork(*config.mutable_actor());
    AnyNetwork(*config.mutable_critic());
    config.set_normalize_advantages(Toss());
    config.set_value_clip(Toss() ? 0.3 : 0);
    config.set_max_gradient_norm(Toss() ? 0.5 : 0);
    config.set_entropy_coefficient(Toss() ? 0.01 : 0);
    const proto::Surrogate surrogates[] = {proto::CLIP, proto::IMPORTANCE, proto::POLICY_GRADIENT};
    config.set_surrogate(surrogates[Below(3)]);
    return config;
  }

  std::unique_ptr<Ppo> Make(const proto::Ppo& config, bool fused) {
    const MakePpoEngine make = fused ? GetParam().make : nullptr;
    auto ppo = Ppo::Create({.config = config, .seed = 3, .make_engine = make}, layout());
    EXPECT_TRUE(ppo.ok()) << ppo.status();
    EXPECT_EQ((*ppo)->fused().ok(), fused);
    return *std::move(ppo);
  }

  Layout layout() const {
    if (!num_choices_.empty()) {
      return DiscreteLayout(static_cast<int>(observation_size_), num_choices_);
    }
    return ContinuousLayout(static_cast<int>(observation_size_),
                            std::vector<double>(action_size_, -1),
                            std::vector<double>(action_size_, 1));
  }

  void AnyChoices() {
    num_choices_.clear();
    for (int64_t elements = 1 + Below(4); elements > 0; --elements) {
      num_choices_.push_back(static_cast<uint32_t>(1 + Below(9)));
    }
  }

  Ppo::Steps AnySteps(int64_t n) const {
    if (!num_choices_.empty()) return AnyStepsOfChoices(n);
    return {.s = torch::randn({n, observation_size_}),
            .a = torch::randn({n, action_size_}),
            .log_mu = torch::randn({n}) - 1.4 * static_cast<double>(action_size_),
            .advantage = torch::randn({n}),
            .target = torch::randn({n}),
            .v_old = torch::randn({n})};
  }

  Ppo::Steps AnyStepsOfChoices(int64_t n) const {
    std::vector<Tensor> choices;
    Tensor log_mu = 0.3 * torch::randn({n});
    for (const uint32_t each : num_choices_) {
      choices.push_back(torch::randint(each, {n, 1}, torch::kInt64));
      log_mu -= std::log(static_cast<double>(each));
    }
    return {.s = torch::randn({n, observation_size_}),
            .a = torch::cat(choices, 1),
            .log_mu = log_mu,
            .advantage = torch::randn({n}),
            .target = torch::randn({n}),
            .v_old = torch::randn({n})};
  }

  // Relative to the larger of both.
  static double Difference(const Tensor& a, const Tensor& b) {
    return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
  }

  // After the same batches by both.
  void ExpectEqual(Ppo& fused, Ppo& reference, double tolerance, const std::string& what) {
    EXPECT_EQ(fused.updates(), reference.updates()) << what;
    const auto files = fused.Save().value(), wanted = reference.Save().value();
    for (const char* const file : {"model.safetensors", "optimizer_state.safetensors"}) {
      const Safetensors ours = Safetensors::Parse(files.at(file)).value();
      const Safetensors theirs = Safetensors::Parse(wanted.at(file)).value();
      for (const auto& [name, view] : theirs.tensors()) {
        if (view.dtype != proto::FLOAT32) continue;
        const auto read = [&](const Safetensors& from) {
          return ReadTensor(from, name, torch::kFloat32, view.shape).value();
        };
        EXPECT_LT(Difference(read(ours), read(theirs)), tolerance) << name << ", " << what;
      }
    }
    for (const auto& [name, value] : reference.Statistics()) {
      EXPECT_NEAR(fused.Statistics().at(name), value, 10 * tolerance * (1 + std::abs(value)))
          << name << ", " << what;
    }
  }

  std::mt19937 engine_{1};
  // One update; Adam's first moments are a tenth of the gradients then.
  void ExpectGradientOfAutograd(int trial, double tolerance) {
    proto::Ppo config = AnyConfig();
    config.set_epochs(1);
    config.set_minibatch_size(0);
    const auto fused = Make(config, true), reference = Make(config, false);
    const Ppo::Steps steps = AnySteps(1 + Below(300));
    ASSERT_TRUE(fused->Improve(steps).ok());
    ASSERT_TRUE(reference->Improve(steps).ok());
    ExpectEqual(*fused, *reference, tolerance, "trial " + std::to_string(trial));
  }
  void ExpectTenUpdatesOfAutograd(int trial, double tolerance) {
    proto::Ppo config = AnyConfig();
    config.set_epochs(2);
    config.set_minibatch_size(64);
    const auto fused = Make(config, true), reference = Make(config, false);
    const Ppo::Steps steps = AnySteps(5 * 64);
    ASSERT_TRUE(fused->Improve(steps).ok());
    ASSERT_TRUE(reference->Improve(steps).ok());
    EXPECT_EQ(fused->updates(), 10);
    ExpectEqual(*fused, *reference, tolerance, "trial " + std::to_string(trial));
  }

  int64_t observation_size_ = 1, action_size_ = 1;
  std::vector<uint32_t> num_choices_;  // of discrete actions
};

TEST_P(PpoEngineTest, EveryGradientIsThatOfAutograd) {
  torch::manual_seed(1);
  for (int trial = 0; trial < GetParam().trials; ++trial) {
    observation_size_ = 1 + Below(40), action_size_ = 1 + Below(20);
    ASSERT_NO_FATAL_FAILURE(ExpectGradientOfAutograd(trial, 2e-4));
  }
}

TEST_P(PpoEngineTest, TenUpdatesAreThoseOfAutograd) {
  torch::manual_seed(2);
  for (int trial = 0; trial < GetParam().trials / 2; ++trial) {
    observation_size_ = 1 + Below(40), action_size_ = 1 + Below(20);
    ASSERT_NO_FATAL_FAILURE(ExpectTenUpdatesOfAutograd(trial, 2e-3));
  }
}

TEST_P(PpoEngineTest, EveryGradientOfAPolicyOfChoicesIsThatOfAutograd) {
  torch::manual_seed(6);
  for (int trial = 0; trial < GetParam().trials; ++trial) {
    observation_size_ = 1 + Below(40);
    AnyChoices();
    ASSERT_NO_FATAL_FAILURE(ExpectGradientOfAutograd(trial, 5e-4));
  }
}

TEST_P(PpoEngineTest, TenUpdatesOfAPolicyOfChoicesAreThoseOfAutograd) {
  torch::manual_seed(7);
  for (int trial = 0; trial < GetParam().trials / 2; ++trial) {
    observation_size_ = 1 + Below(40);
    AnyChoices();
    ASSERT_NO_FATAL_FAILURE(ExpectTenUpdatesOfAutograd(trial, 5e-3));
  }
}

TEST_P(PpoEngineTest, StopsWhereAutogradWouldBeforeAPolicyThatIsTooFar) {
  torch::manual_seed(3);
  observation_size_ = 5, action_size_ = 2;
  proto::Ppo config;
  config.set_max_kl(1e-9);
  const auto fused = Make(config, true), reference = Make(config, false);
  const Ppo::Steps steps = AnySteps(128);
  ASSERT_TRUE(fused->Improve(steps).ok());
  ASSERT_TRUE(reference->Improve(steps).ok());
  EXPECT_EQ(fused->updates(), 0);
  ExpectEqual(*fused, *reference, 1e-6, "too far");
}

// The engine keeps room for the largest batch so far.
TEST_P(PpoEngineTest, BatchesOfAllSizesOneAfterAnother) {
  torch::manual_seed(4);
  observation_size_ = 7, action_size_ = 3;
  proto::Ppo config;
  config.set_epochs(2);
  config.set_minibatch_size(16);
  const auto fused = Make(config, true), reference = Make(config, false);
  for (const int64_t n : {16, 50, 3, 33, 1}) {
    const Ppo::Steps steps = AnySteps(n);
    ASSERT_TRUE(fused->Improve(steps).ok());
    ASSERT_TRUE(reference->Improve(steps).ok());
    ExpectEqual(*fused, *reference, 2e-3, std::to_string(n) + " rows");
  }
}

TEST_P(PpoEngineTest, StopsInTheMiddleOfABatchAndGoesOnWithTheNext) {
  torch::manual_seed(5);
  observation_size_ = 5, action_size_ = 2;
  proto::Ppo config;
  config.set_epochs(3);
  config.set_learning_rate(1e-2);
  config.set_minibatch_size(32);
  config.set_surrogate(proto::IMPORTANCE);
  const auto steps_near = [&](Ppo& ppo) {
    Ppo::Steps steps = AnySteps(128);
    const torch::NoGradGuard no_grad;
    steps.log_mu = ppo.actor().LogProb(ppo.actor().Head(steps.s), steps.a);
    return steps;
  };
  config.set_max_kl(0.02);
  const auto fused = Make(config, true), reference = Make(config, false);
  for (int i = 0; i < 3; ++i) {
    const int64_t before = reference->updates();
    const Ppo::Steps steps = steps_near(*reference);
    ASSERT_TRUE(fused->Improve(steps).ok());
    ASSERT_TRUE(reference->Improve(steps).ok());
    EXPECT_GT(reference->updates(), before);
    EXPECT_LT(reference->updates(), before + 12);
    ExpectEqual(*fused, *reference, 2e-3, "batch " + std::to_string(i));
  }
}

TEST_P(PpoEngineTest, SaysWhatItLeavesToAutograd) {
  const auto refusal = [&](const std::function<void(proto::Ppo&)>& change) {
    proto::Ppo config;
    change(config);
    const absl::Status fused =
        (*Ppo::Create({.config = config, .make_engine = GetParam().make}, layout()))->fused();
    return fused.ok() ? "" : std::string(fused.message());
  };
  EXPECT_EQ(refusal([](proto::Ppo&) {}), "");
  EXPECT_THAT(refusal([](proto::Ppo& c) { c.mutable_critic()->set_layer_norm(true); }),
              testing::HasSubstr("layer_norm"));
  EXPECT_THAT(refusal([](proto::Ppo& c) { c.mutable_actor()->set_dropout(0.1); }),
              testing::HasSubstr("dropout"));
  EXPECT_THAT(refusal([](proto::Ppo& c) { c.set_surrogate(proto::KL_PENALTY); }),
              testing::HasSubstr("KL"));
}

TEST(CpuPpoEngineTest, TwoThreadsGiveTheBitsOfOne) {
  proto::Ppo config;
  config.set_max_gradient_norm(0.5);
  std::vector<std::unique_ptr<Ppo>> learners;
  for (const int threads : {1, 2}) {
    const auto make = [threads](const PpoModel& model) { return MakeCpuPpoEngine(model, threads); };
    learners.push_back(*Ppo::Create({.config = config, .seed = 3, .make_engine = make},
                                    ContinuousLayout(17, {-1, -1, -1}, {1, 1, 1})));
  }
  torch::manual_seed(8);
  for (int batch = 0; batch < 10; ++batch) {
    const Ppo::Steps steps{.s = torch::randn({2048, 17}),
                           .a = torch::randn({2048, 3}),
                           .log_mu = torch::randn({2048}) - 4.2,
                           .advantage = torch::randn({2048}),
                           .target = torch::randn({2048}),
                           .v_old = torch::randn({2048})};
    for (const auto& learner : learners) ASSERT_TRUE(learner->Improve(steps).ok());
    ASSERT_EQ(learners[0]->Save().value(), learners[1]->Save().value()) << "batch " << batch;
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, PpoEngineTest, testing::ValuesIn(Engines()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
