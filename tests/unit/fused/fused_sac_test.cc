// FusedSac and the CPU engine against the reference's autograd.
#include "learner/fused_sac.h"

#include <functional>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/sac.h"
#include "tests/unit/fused/random_sac.h"
#include "tests/unit/learner/rows.h"

namespace troupe {
namespace {

using testing::HasSubstr;
using torch::Tensor;

struct Sizes {
  int64_t observation, action, batch;
  std::vector<int> hidden;
};

struct FusedCase {
  std::string name;
  Sizes sizes;
  std::function<void(proto::Sac&)> change = [](proto::Sac&) {};
};
void PrintTo(const FusedCase& c, std::ostream* out) { *out << c.name; }

proto::Sac ConfigOf(const FusedCase& c) {
  proto::Sac config;
  config.set_batch_size(static_cast<int>(c.sizes.batch));
  for (proto::Mlp* mlp : {config.mutable_actor(), config.mutable_critic()}) {
    mlp->mutable_hidden_sizes()->Assign(c.sizes.hidden.begin(), c.sizes.hidden.end());
  }
  config.set_initial_alpha(0.3);
  c.change(config);
  return config;
}

Layout LayoutOf(const Sizes& sizes) {
  return MakeLayout(static_cast<int>(sizes.observation), std::vector<double>(sizes.action, -2),
                    std::vector<double>(sizes.action, 1));
}

// Keeps a pointer to its engine, for batches with noise of the test's own.
std::unique_ptr<FusedSac> MakeFused(const proto::Sac& config, const Layout& layout,
                                    SacEngine** engine, uint64_t seed = 1,
                                    std::optional<Prioritized> prioritized = std::nullopt) {
  auto fused = FusedSac::Create({.config = config, .seed = seed, .prioritized = prioritized},
                                layout, [&](const SacModel& model) {
                                  auto made = MakeCpuSacEngine(model, 1);
                                  if (engine != nullptr) *engine = made.get();
                                  return made;
                                });
  EXPECT_TRUE(fused.ok()) << fused.status();
  return *std::move(fused);
}

std::unique_ptr<Sac> MakeReference(const proto::Sac& config, const Layout& layout,
                                   torch::Dtype dtype, uint64_t seed = 1) {
  return *Sac::Create(
      {.config = config, .seed = seed, .tensors = dtype, .prioritized = Prioritized(0.4, 1000)},
      layout);
}

Tensor ToTensor(const std::vector<float>& values, std::vector<int64_t> shape) {
  return torch::tensor(values).view(shape).to(torch::kFloat64);
}

// The same transitions for the reference.
Transitions ToTransitions(const RandomSac::Batch& batch, const Sizes& sizes) {
  const int64_t inputs = sizes.observation + sizes.action;
  const Tensor rows = ToTensor(batch.rows, {sizes.batch, 2, inputs});
  std::vector<float> reward, discount;
  for (const ReplicaTransition& transition : batch.transitions) {
    reward.push_back(transition.reward);
    discount.push_back(transition.discount);
  }
  return {.s = rows.select(1, 0).narrow(1, 0, sizes.observation),
          .a = rows.select(1, 0).narrow(1, sizes.observation, sizes.action),
          .r = ToTensor(reward, {sizes.batch}),
          .gamma = ToTensor(discount, {sizes.batch}),
          .d = torch::zeros({sizes.batch}, torch::kFloat64),
          .s_next = rows.select(1, 1).narrow(1, 0, sizes.observation)};
}

// Fills in what the reference will draw in its next update, as it draws it.
void DrawAsReference(const Sac& sac, const SacModel& model, RandomSac::Batch& batch) {
  const auto files = sac.Save();
  const auto file = Safetensors::Parse(files->at("rng_state.safetensors"));
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_state(
      *ReadTensor(*file, "generator", torch::kUInt8, generator.get_state().sizes().vec()));
  const auto draw_noise = [&] {
    const Tensor drawn = torch::empty({model.batch_size, model.action_size}, torch::kFloat64)
                             .normal_(0, 1, generator)
                             .to(torch::kFloat32);
    const float* const noise = drawn.data_ptr<float>();
    batch.noise.insert(batch.noise.end(), noise, noise + drawn.numel());
  };
  draw_noise();
  if (model.target_subset < model.num_critics) {
    const Tensor order = torch::randperm(model.num_critics, generator, torch::kInt64);
    const int64_t* const drawn = order.data_ptr<int64_t>();
    batch.target_critics.assign(drawn, drawn + model.target_subset);
  }
  draw_noise();
}

double Distance(const std::vector<float>& a, const Tensor& b) {
  const Tensor difference = ToTensor(a, {-1}) - b.detach().to(torch::kFloat64);
  return (difference.norm() / b.detach().to(torch::kFloat64).norm().clamp_min(1e-300))
      .item<double>();
}

class FusedAgainstReference : public testing::TestWithParam<FusedCase> {
 protected:
  FusedAgainstReference()
      : sizes_(GetParam().sizes),
        config_(ConfigOf(GetParam())),
        reference_(MakeReference(config_, LayoutOf(sizes_), torch::kFloat64)),
        fused_(MakeFused(config_, LayoutOf(sizes_), &engine_)),
        random_(engine_->model()) {}

  void UpdateBoth(bool weighted = false) {
    RandomSac::Batch batch = random_.MakeBatch();
    DrawAsReference(*reference_, engine_->model(), batch);
    Transitions b = ToTransitions(batch, sizes_);
    if (weighted) {
      batch.weights = random_.Uniform(sizes_.batch, 1);
      for (float& weight : batch.weights) weight = std::abs(weight);
      b.weight = ToTensor(batch.weights, {sizes_.batch});
    }
    ASSERT_TRUE(engine_->Update(batch.View()).ok());
    ASSERT_TRUE(reference_->Step(b).ok());
  }

  void ExpectNear(double tolerance) {
    const SacState state = *engine_->Save();
    EXPECT_LT(Distance(state.critics.values, reference_->critics().parameters().values()),
              tolerance);
    EXPECT_LT(Distance(state.actor.values, reference_->actor().parameters().values()), tolerance);
    EXPECT_LT(Distance(state.target_critics, reference_->target_critics().parameters().values()),
              tolerance);
    EXPECT_NEAR(state.log_alpha.values[0], reference_->log_alpha().item<double>(), tolerance);
    const auto expected = reference_->Statistics();
    const auto actual = fused_->Statistics();
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, value] : expected) {
      EXPECT_NEAR(actual.at(name), value, 10 * tolerance * (1 + std::abs(value))) << name;
    }
  }

  const Sizes sizes_;
  const proto::Sac config_;
  SacEngine* engine_ = nullptr;
  std::unique_ptr<Sac> reference_;
  std::unique_ptr<FusedSac> fused_;
  RandomSac random_;
};

// Adam's first step is learning_rate * gradient / |gradient|, so its moments are what to look at:
// a tenth of the gradient.
TEST_P(FusedAgainstReference, EveryGradientIsAutogradsOne) {
  for (int i = 0; i < config_.actor_update_interval(); ++i) UpdateBoth();
  const SacState state = *engine_->Save();
  const auto files = reference_->Save();
  const auto optimizer = Safetensors::Parse(files->at("optimizer_state.safetensors"));
  const auto moments = [&](const std::string& name, size_t n) {
    return *ReadTensor(*optimizer, name + ".exp_avg", torch::kFloat64, {static_cast<int64_t>(n)});
  };
  EXPECT_LT(Distance(state.critics.m, moments("critic", state.critics.m.size())), 2e-4);
  EXPECT_LT(Distance(state.actor.m, moments("actor", state.actor.m.size())), 2e-3);
  EXPECT_LT(Distance(state.log_alpha.m, moments("log_alpha", 1)), 1e-4);
}

TEST_P(FusedAgainstReference, TenUpdatesAgree) {
  for (int i = 0; i < 10; ++i) UpdateBoth();
  ExpectNear(1e-3);
}

TEST_P(FusedAgainstReference, TenUpdatesOfWeightedErrorsAgreeAndSoDoTheErrors) {
  for (int i = 0; i < 10; ++i) UpdateBoth(/*weighted=*/true);
  ExpectNear(1e-3);
  const Tensor expected = torch::tensor(reference_->Priorities());
  EXPECT_LT(Distance(engine_->AbsoluteErrors(), expected), 1e-3);
}

void SetEnsemble(proto::Sac& c, int num_critics, int min_subset) {
  c.set_num_critics(num_critics);
  c.set_min_subset(min_subset);
}

void SetLayerNorm(proto::Sac& c, bool of_actor, bool of_critic) {
  c.mutable_actor()->set_layer_norm(of_actor);
  c.mutable_critic()->set_layer_norm(of_critic);
}

// Any shapes, units, ensembles and LayerNorm.
std::vector<FusedCase> RandomCases() {
  std::vector<FusedCase> cases;
  std::mt19937 random(7);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  const auto make_sizes = [&] {
    std::vector<int> sizes(1 + below(3));
    for (int& size : sizes) size = 2 + below(60);
    return sizes;
  };
  for (int i = 0; i < 12; ++i) {
    const std::vector<int> of_actor = make_sizes(), of_critic = make_sizes();
    const int critics = std::vector<int>{1, 2, 3, 10}[i % 4], subset = 1 + below(critics);
    const int norms = below(4), units = below(9);
    const bool mean = below(2) == 1;
    const Sizes sizes{1 + below(20), 1 + below(5), 1 + below(150), {}};
    cases.push_back(
        {"Random" + std::to_string(i), sizes, [=](proto::Sac& c) {
           SetEnsemble(c, critics, subset);
           SetLayerNorm(c, norms % 2, norms / 2);
           c.set_actor_uses_mean_critic(mean);
           c.mutable_actor()->mutable_hidden_sizes()->Assign(of_actor.begin(), of_actor.end());
           c.mutable_critic()->mutable_hidden_sizes()->Assign(of_critic.begin(), of_critic.end());
           const proto::Activation all[] = {proto::RELU, proto::TANH, proto::ELU};
           c.mutable_actor()->set_activation(all[units % 3]);
           c.mutable_critic()->set_activation(all[units / 3]);
         }});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedAgainstReference, testing::ValuesIn(RandomCases()),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Cases, FusedAgainstReference,
    testing::Values(
        FusedCase{"Small", {3, 2, 6, {5}}}, FusedCase{"OddSizes", {11, 3, 37, {33, 70}}},
        FusedCase{"Lecture", {17, 6, 64, {256, 256}}},
        FusedCase{"Deep", {5, 1, 16, {32, 16, 24, 8}}},
        FusedCase{"TanhAndElu",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) {
                    c.mutable_actor()->set_activation(proto::TANH);
                    c.mutable_critic()->set_activation(proto::ELU);
                  }},
        FusedCase{"ClampedSpread",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) {
                    c.set_log_std_min(-0.05);
                    c.set_log_std_max(0.05);
                  }},
        FusedCase{"LikeRedq",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) {
                    c.set_actor_update_interval(3);
                    c.set_actor_uses_mean_critic(true);
                    c.set_backup_entropy(false);
                  }},
        FusedCase{"OneCritic", {7, 2, 32, {40, 40}}, [](proto::Sac& c) { SetEnsemble(c, 1, 1); }},
        FusedCase{"Redq",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) {
                    SetEnsemble(c, 10, 2);
                    c.set_actor_uses_mean_critic(true);
                  }},
        FusedCase{
            "LeastOfThree", {7, 2, 160, {40, 40}}, [](proto::Sac& c) { SetEnsemble(c, 3, 3); }},
        FusedCase{"Rlpd",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) {
                    SetEnsemble(c, 10, 1);
                    SetLayerNorm(c, false, true);
                  }},
        FusedCase{"LayerNorm",
                  {17, 6, 160, {256, 256}},
                  [](proto::Sac& c) { SetLayerNorm(c, true, true); }},
        FusedCase{"FixedTemperature",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) { c.set_entropy(proto::FIXED_TEMPERATURE); }},
        FusedCase{"NoEntropy",
                  {7, 2, 32, {40, 40}},
                  [](proto::Sac& c) { c.set_entropy(proto::NO_ENTROPY); }}),
    [](const auto& info) { return info.param.name; });

// Random windows, some of which end an episode.
WindowBatch RandomWindows(const Layout& layout, const Sizes& sizes, int n_step, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto pool = std::make_shared<BatchPool>(sizes.batch, n_step + 1, layout.stride_bytes());
  WindowBatch batch = pool->Take();
  std::vector<Row> rows(sizes.batch * (n_step + 1));
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int j = 0; j < sizes.observation; ++j) rows[i].observation.push_back(uniform(engine));
    for (int j = 0; j < sizes.action; ++j) rows[i].action.push_back(uniform(engine));
    rows[i].reward = uniform(engine);
    if (i % (n_step + 1) > 0 && uniform(engine) > 0.7f) {
      rows[i].flags = uniform(engine) > 0 ? kTerminated : kTruncated;
    }
  }
  const std::vector<uint8_t> bytes = Pack(layout, rows);
  std::copy(bytes.begin(), bytes.end(), batch.buffer->data);
  return batch;
}

const FusedCase kWindows{"Windows", {4, 2, 24, {16, 16}}, [](proto::Sac& c) { c.set_n_step(3); }};

TEST(FusedSacTest, BeginsWithTheReferencesNetworksAndLearnsFromTheSameWindows) {
  const proto::Sac config = ConfigOf(kWindows);
  const Layout layout = LayoutOf(kWindows.sizes);
  const auto reference = MakeReference(config, layout, torch::kFloat32);
  const auto fused = MakeFused(config, layout, nullptr);
  EXPECT_EQ(fused->Save()->at("model.safetensors"), reference->Save()->at("model.safetensors"));
  const WindowBatch batch = RandomWindows(layout, kWindows.sizes, 3, 1);
  ASSERT_TRUE(fused->Update(batch, 0).ok());
  ASSERT_TRUE(reference->Update(batch, 0).ok());
  // Their noise differs, and it reaches the loss through alpha * log pi alone.
  EXPECT_NEAR(fused->Statistics().at("q_mean"), reference->Statistics().at("q_mean"), 1e-6);
  EXPECT_NEAR(fused->Statistics().at("q_loss"), reference->Statistics().at("q_loss"), 0.2);
}

TEST(FusedSacTest, WeighsPrioritizedWindowsAsTheReferenceDoes) {
  proto::Sac config = ConfigOf(kWindows);
  config.set_gamma(0);  // or their noise would differ
  const Layout layout = LayoutOf(kWindows.sizes);
  WindowBatch batch = RandomWindows(layout, kWindows.sizes, 3, 1);
  for (int i = 0; i < batch.num_windows; ++i) {
    batch.buffer->probabilities[i] = 1 / static_cast<float>(1 + i * i);
  }
  const auto reference = MakeReference(config, layout, torch::kFloat32);
  const auto fused = MakeFused(config, layout, nullptr, 1, Prioritized(0.4, 1000));
  const auto uniform = MakeFused(config, layout, nullptr);
  EXPECT_TRUE(fused->Priorities().empty());
  for (Algorithm* algorithm : std::initializer_list<Algorithm*>{&*reference, &*fused, &*uniform}) {
    ASSERT_TRUE(algorithm->Update(batch, 500).ok());
  }
  const auto loss = [](const Algorithm& algorithm) { return algorithm.Statistics().at("q_loss"); };
  EXPECT_NEAR(loss(*fused), loss(*reference), 1e-5);
  EXPECT_GT(loss(*uniform), 1.1 * loss(*fused));
  const std::vector<float> priorities = fused->Priorities();
  EXPECT_LT(Distance(priorities, torch::tensor(reference->Priorities())), 1e-5);
  EXPECT_TRUE(uniform->Priorities().empty());
}

TEST(FusedSacTest, ARestoredOneGoesOnBitByBit) {
  const proto::Sac config = ConfigOf(kWindows);
  const Layout layout = LayoutOf(kWindows.sizes);
  const auto first = MakeFused(config, layout, nullptr);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(first->Update(RandomWindows(layout, kWindows.sizes, 3, i), 0).ok());
  }
  const auto second = MakeFused(config, layout, nullptr);
  const absl::Status loaded = second->Load(*first->Save());
  ASSERT_TRUE(loaded.ok()) << loaded;
  for (int i = 5; i < 10; ++i) {
    for (FusedSac* sac : {first.get(), second.get()}) {
      ASSERT_TRUE(sac->Update(RandomWindows(layout, kWindows.sizes, 3, i), 0).ok());
    }
  }
  EXPECT_EQ(*first->Save(), *second->Save());
  EXPECT_EQ(second->updates(), 10);
}

TEST(FusedSacTest, EnginesTakeOverFromEachOtherAtACheckpoint) {
  proto::Sac config = ConfigOf(kWindows);
  SetEnsemble(config, 5, 2);
  SetLayerNorm(config, true, true);
  const Layout layout = LayoutOf(kWindows.sizes);
  const auto reference = MakeReference(config, layout, torch::kFloat32, 5);
  SacEngine* engine = nullptr;
  const auto fused = MakeFused(config, layout, &engine);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(reference->Update(RandomWindows(layout, kWindows.sizes, 3, i), 0).ok());
  }
  absl::Status loaded = fused->Load(*reference->Save());
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(fused->updates(), 5);
  RandomSac random(engine->model());
  for (int i = 0; i < 10; ++i) {
    RandomSac::Batch batch = random.MakeBatch();
    batch.noise.assign(2 * kWindows.sizes.batch * kWindows.sizes.action, 0);
    ASSERT_TRUE(engine->Update(batch.View()).ok());
  }
  const auto saved = fused->Save();
  const auto back = MakeReference(config, layout, torch::kFloat32, 6);
  loaded = back->Load(*saved);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(back->updates(), 15);
  EXPECT_EQ(back->Save()->at("model.safetensors"), saved->at("model.safetensors"));
  EXPECT_EQ(back->Save()->at("optimizer_state.safetensors"),
            saved->at("optimizer_state.safetensors"));
}

TEST(FusedSacTest, SaysWhichSettingItDoesNotCompute) {
  const auto refusal = [](const std::function<void(proto::Sac&)>& change) {
    FusedCase c = kWindows;
    c.change = change;
    const auto fused =
        FusedSac::Create({.config = ConfigOf(c), .seed = 1}, LayoutOf(c.sizes),
                         [](const SacModel& model) { return MakeCpuSacEngine(model, 1); });
    EXPECT_EQ(fused.status().code(), absl::StatusCode::kUnimplemented);
    return std::string(fused.status().message());
  };
  EXPECT_THAT(refusal([](proto::Sac& c) { c.mutable_critic()->set_dropout(0.1); }),
              HasSubstr("dropout"));
  EXPECT_THAT(refusal([](proto::Sac& c) { c.set_critic_kind(proto::V_FROM_REPLAY); }),
              HasSubstr("critic_kind"));
  EXPECT_THAT(refusal([](proto::Sac& c) { c.mutable_recurrence()->set_kind(proto::GRU); }),
              HasSubstr("recurrence"));
}

// Of 64 transitions that end without a reward, number 17 ends with one.
void FillWithASurprise(ReplicaStore& replica) {
  std::vector<ReplicaTransition> transitions(64, {0, 1, 0, 0});
  for (uint32_t i = 0; i < 64; ++i) transitions[i].state_slot = i;
  transitions[17].reward = 50;
  std::vector<float> rows(64 * replica.shape().row_floats());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::sin(static_cast<float>(i));
  ASSERT_TRUE(replica.WriteRows(0, rows).ok());
  ASSERT_TRUE(replica.WriteTransitions(0, transitions).ok());
  ASSERT_TRUE(replica.SetRange(0, 64).ok());
}

TEST(FusedSacTest, BothEnginesDrawByPriorityFromAReplicaWhatSurprisesThem) {
  const proto::Sac config = ConfigOf(kWindows);
  const Layout layout = LayoutOf(kWindows.sizes);
  const auto reference = MakeReference(config, layout, torch::kFloat32);
  const auto fused = MakeFused(config, layout, nullptr, 1, Prioritized(0.4, 1000));
  std::vector<double> shares;
  for (Algorithm* algorithm : std::initializer_list<Algorithm*>{&*reference, &*fused}) {
    const auto replica =
        algorithm->MakeReplica({.capacity = 64, .observation_size = 4, .action_size = 2});
    ASSERT_TRUE(replica.ok()) << replica.status();
    FillWithASurprise(**replica);
    ASSERT_TRUE(algorithm->UpdateFromReplica(20, 0).ok());
    EXPECT_EQ(algorithm->updates(), 20);
    const auto* const store = dynamic_cast<const PrioritizedReplicaStore*>(*replica);
    ASSERT_NE(store, nullptr);
    std::vector<uint64_t> numbers(1000);
    std::vector<float> probabilities(1000);
    store->Draw(1, absl::MakeSpan(numbers), absl::MakeSpan(probabilities));
    const auto surprise = std::find(numbers.begin(), numbers.end(), 17);
    ASSERT_NE(surprise, numbers.end());
    shares.push_back(probabilities[surprise - numbers.begin()]);
  }
  EXPECT_GT(shares[0], 0.2);  // 1 / 64 if all were alike
  EXPECT_NEAR(shares[1], shares[0], 0.05);
}

TEST(FusedSacTest, DrawsTheCriticsOfTheTargetByItself) {
  FusedCase c = kWindows;
  c.change = [](proto::Sac& sac) { SetEnsemble(sac, 4, 2); };
  SacEngine *drawing = nullptr, *told = nullptr;
  const auto first = MakeFused(ConfigOf(c), LayoutOf(c.sizes), &drawing);
  const auto second = MakeFused(ConfigOf(c), LayoutOf(c.sizes), &told);
  RandomSac random(drawing->model());
  const uint64_t seed = drawing->Save()->seed;
  std::set<std::vector<int32_t>> drawn;
  for (uint64_t update = 0; update < 10; ++update) {
    RandomSac::Batch batch = random.MakeBatch();
    ASSERT_TRUE(drawing->Update(batch.View()).ok());
    std::vector<int32_t> order(4);
    DrawSubset(seed, update, 4, 2, order.data());
    batch.target_critics = {order[0], order[1]};
    drawn.insert(batch.target_critics);
    ASSERT_TRUE(told->Update(batch.View()).ok());
  }
  EXPECT_EQ(drawing->Save()->critics.values, told->Save()->critics.values);
  EXPECT_GT(drawn.size(), 3);
}

TEST(FusedSacTest, DrawsFromItsReplicaWithinTheRange) {
  SacEngine* engine = nullptr;
  const proto::Sac config = ConfigOf(kWindows);
  const auto fused = MakeFused(config, LayoutOf(kWindows.sizes), &engine);
  const ReplicaShape shape{.capacity = 64, .observation_size = 4, .action_size = 2};
  EXPECT_EQ(fused->UpdateFromReplica(1, 0).code(), absl::StatusCode::kFailedPrecondition);
  const auto replica = fused->MakeReplica(shape);
  ASSERT_TRUE(replica.ok()) << replica.status();
  // What is outside the range would be seen at once.
  const float nan = std::nanf("");
  std::vector<ReplicaTransition> transitions(64, {0, 1, nan, nan});
  for (int i = 60; i < 70; ++i) transitions[i % 64] = {2, 3, 0.5f, 0.9f};
  RandomSac random(engine->model());
  ASSERT_TRUE((*replica)->WriteRows(0, random.Uniform(64 * 6, 1)).ok());
  ASSERT_TRUE((*replica)->WriteTransitions(0, transitions).ok());
  ASSERT_TRUE((*replica)->SetRange(60, 70).ok());
  ASSERT_TRUE(fused->UpdateFromReplica(20, 0).ok());
  EXPECT_EQ(fused->updates(), 20);
  EXPECT_TRUE(std::isfinite(fused->Statistics().at("q_loss")));
}

}  // namespace
}  // namespace troupe
