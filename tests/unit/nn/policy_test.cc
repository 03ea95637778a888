#include "common/policy.h"

#include <cmath>
#include <functional>
#include <random>

#include "common/policy_codec.h"
#include "common/safetensors.h"
#include "common/squashed_gaussian.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::HasSubstr;

constexpr int64_t kObservations = 3, kActions = 2;

PolicyMetadata Metadata() {
  PolicyMetadata metadata;
  metadata.run = "cheetah";
  metadata.version = 77;
  metadata.env_steps = 1000;
  metadata.updates = 900;
  metadata.observation_size = kObservations;
  metadata.action_size = kActions;
  metadata.action_low = {-1, 0};
  metadata.action_high = {1, 10};
  metadata.network.add_hidden_sizes(8);
  metadata.network.add_hidden_sizes(4);
  metadata.log_std_min = -20;
  metadata.log_std_max = 2;
  return metadata;
}

FlatParameters Network(const PolicyMetadata& metadata) {
  FlatParameters network(PolicyParameters(metadata), torch::kFloat32);
  network.Initialize(1);
  network.values().mul_(3);  // actions that differ visibly
  return network;
}

Snapshot MakeSnapshot(const PolicyMetadata& metadata) {
  return {.run = metadata.run,
          .version = metadata.version,
          .image = EncodePolicy(metadata, Network(metadata)).value()};
}

std::vector<float> Observations(int64_t n) {
  std::vector<float> observations(n * kObservations);
  for (size_t i = 0; i < observations.size(); ++i) observations[i] = std::sin(1.0f + i);
  return observations;
}

std::vector<float> Act(Policy& policy, const std::vector<float>& observations, bool deterministic) {
  const int64_t n = observations.size() / kObservations;
  std::vector<float> actions(n * kActions), rows(n * kActions), log_probs(n);
  const absl::Status status = deterministic
                                  ? policy.Mode(observations, n, absl::MakeSpan(actions))
                                  : policy.Sample(observations, n,
                                                  {absl::MakeSpan(actions), absl::MakeSpan(rows),
                                                   absl::MakeSpan(log_probs)});
  EXPECT_TRUE(status.ok()) << status;
  return actions;
}

TEST(PolicyTest, MetadataComesBackAsItWas) {
  PolicyMetadata metadata = Metadata();
  metadata.warmup = true;
  metadata.final_one = true;
  metadata.action_low = {-0.1, -1e-3};
  metadata.network.set_layer_norm(true);
  metadata.network.set_activation(proto::ELU);
  const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
  ASSERT_TRUE(policy.ok()) << policy.status();
  const PolicyMetadata& read = (*policy)->metadata();
  EXPECT_EQ(read.run, metadata.run);
  EXPECT_EQ(read.version, metadata.version);
  EXPECT_EQ(read.env_steps, metadata.env_steps);
  EXPECT_EQ(read.updates, metadata.updates);
  EXPECT_TRUE(read.warmup);
  EXPECT_TRUE(read.final_one);
  EXPECT_EQ(read.action_low, metadata.action_low);
  EXPECT_EQ(read.action_high, metadata.action_high);
  EXPECT_EQ(read.network.SerializeAsString(), metadata.network.SerializeAsString());
  EXPECT_EQ(read.log_std_min, -20);
}

TEST(PolicyTest, TheModeIsTheNetworksSquashedMeanInNativeUnits) {
  for (const bool layer_norm : {false, true}) {
    PolicyMetadata metadata = Metadata();
    metadata.network.set_layer_norm(layer_norm);
    const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
    ASSERT_TRUE(policy.ok()) << policy.status();
    const std::vector<float> observations = Observations(5);
    const std::vector<float> actions = Act(**policy, observations, true);
    const FlatParameters network = Network(metadata);
    const torch::Tensor x = torch::tensor(observations).view({5, kObservations});
    const torch::Tensor head = MlpForward(PolicyShape(metadata), network.frozen(), x).detach();
    for (int64_t i = 0; i < 5; ++i) {
      const double first = std::tanh(head[i][0].item<double>());
      const double second = std::tanh(head[i][1].item<double>());
      EXPECT_NEAR(actions[i * 2], first, 1e-6);
      EXPECT_NEAR(actions[i * 2 + 1], 5 + 5 * second, 1e-5);
    }
  }
}

TEST(PolicyTest, RandomActionsHaveTheNetworksMeanAndSpread) {
  PolicyMetadata metadata = Metadata();
  metadata.log_std_max = -1;  // far from where tanh rounds to 1
  const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
  const int64_t n = 20000;
  std::vector<float> observations;
  for (int64_t i = 0; i < n; ++i) observations.insert(observations.end(), {0.1f, -0.2f, 0.3f});
  const std::vector<float> actions = Act(**policy, observations, false);
  const FlatParameters network = Network(metadata);
  const torch::Tensor x = torch::tensor({0.1f, -0.2f, 0.3f}).view({1, 3});
  const torch::Tensor head = MlpForward(PolicyShape(metadata), network.frozen(), x).detach();
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double u = std::atanh(static_cast<double>(actions[i * 2]));
    sum += u;
    squares += u * u;
  }
  const double mean = sum / n, std = std::sqrt(squares / n - mean * mean);
  const double expected_std = std::exp(std::min(head[0][2].item<double>(), -1.0));
  EXPECT_NEAR(mean, head[0][0].item<double>(), 4 * expected_std / std::sqrt(n));
  EXPECT_NEAR(std / expected_std, 1, 0.02);
}

TEST(PolicyTest, WarmUpIsUniformWithinTheBoundsButItsModeIsTheNetworks) {
  PolicyMetadata metadata = Metadata();
  const auto ordinary = Policy::FromSnapshot(MakeSnapshot(metadata));
  metadata.warmup = true;
  const auto warm = Policy::FromSnapshot(MakeSnapshot(metadata));
  const std::vector<float> observations = Observations(20000);
  const std::vector<float> actions = Act(**warm, observations, false);
  double sum = 0, least = 10, most = 0;
  for (size_t i = 1; i < actions.size(); i += 2) {
    sum += actions[i] / 20000;
    least = std::min<double>(least, actions[i]);
    most = std::max<double>(most, actions[i]);
  }
  EXPECT_NEAR(sum, 5, 0.1);
  EXPECT_GE(least, 0);
  EXPECT_LT(least, 0.01);
  EXPECT_LE(most, 10);
  EXPECT_GT(most, 9.99);
  EXPECT_EQ(Act(**warm, observations, true), Act(**ordinary, observations, true));
}

// One observation, many times over.
struct Draws {
  Draws(Policy& policy, int64_t draws) : n(draws) {
    const int64_t size = policy.metadata().action_size;
    std::vector<float> observations;
    for (int64_t i = 0; i < n; ++i) observations.insert(observations.end(), {0.1f, -0.2f, 0.3f});
    env.resize(n * size);
    row.resize(n * size);
    log_prob.resize(n);
    const absl::Status status = policy.Sample(
        observations, n, {absl::MakeSpan(env), absl::MakeSpan(row), absl::MakeSpan(log_prob)});
    EXPECT_TRUE(status.ok()) << status;
  }

  const int64_t n;
  std::vector<float> env, row, log_prob;
};

// What the network says of that observation.
std::vector<double> HeadAt(const PolicyMetadata& metadata) {
  const FlatParameters network = Network(metadata);
  const torch::Tensor x = torch::tensor({0.1f, -0.2f, 0.3f}).view({1, 3});
  const torch::Tensor head = MlpForward(PolicyShape(metadata), network.frozen(), x).detach();
  std::vector<double> numbers;
  for (int64_t i = 0; i < head.size(1); ++i) numbers.push_back(head[0][i].item<double>());
  return numbers;
}

PolicyMetadata GaussianMetadata(bool squash) {
  PolicyMetadata metadata = Metadata();
  metadata.distribution = Distribution::kGaussian;
  metadata.squash = squash;
  return metadata;
}

TEST(PolicyTest, AGaussiansRowsKeepWhatWasDrawnAndTheEnvironmentGetsItWithinTheBounds) {
  for (const bool squash : {false, true}) {
    const PolicyMetadata metadata = GaussianMetadata(squash);
    const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ((*policy)->metadata().squash, squash);
    const Draws draws(**policy, 500);
    const std::vector<double> mean = HeadAt(metadata);
    int beyond = 0;
    for (int64_t i = 0; i < draws.n; ++i) {
      double log_prob = 0;
      for (int64_t j = 0; j < 2; ++j) {
        const double low = metadata.action_low[j], high = metadata.action_high[j];
        const double u = (draws.row[i * 2 + j] - (low + high) / 2) * 2 / (high - low);
        const double inside = squash ? std::tanh(u) : std::clamp(u, -1.0, 1.0);
        EXPECT_NEAR(draws.env[i * 2 + j], low + (inside + 1) / 2 * (high - low), 1e-5);
        beyond += std::abs(u) > 1;
        // A fresh log_std is 0, but for the factor with which Network() multiplies: 0 too.
        log_prob -= (u - mean[j]) * (u - mean[j]) / 2 + std::log(2 * M_PI) / 2;
      }
      EXPECT_NEAR(draws.log_prob[i], log_prob, 1e-4);
    }
    EXPECT_GT(beyond, 100);
  }
}

TEST(PolicyTest, TheSquashedGaussiansLogProbIsThatOfTheLearner) {
  const PolicyMetadata metadata = Metadata();
  const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
  const Draws draws(**policy, 200);
  const std::vector<double> head = HeadAt(metadata);
  for (int64_t i = 0; i < draws.n; ++i) {
    std::vector<double> noise;
    bool saturated = false;
    for (int64_t j = 0; j < 2; ++j) {
      const double low = metadata.action_low[j], high = metadata.action_high[j];
      const double a = (draws.row[i * 2 + j] - (low + high) / 2) * 2 / (high - low);
      saturated |= std::abs(a) > 0.999;
      noise.push_back((std::atanh(a) - head[j]) / std::exp(std::min(head[2 + j], 2.0)));
    }
    if (saturated) continue;  // the noise cannot be told from the action
    const ActionSample sample =
        SquashedGaussian(torch::tensor(head, torch::kFloat64).view({1, 4}),
                         torch::tensor(noise, torch::kFloat64).view({1, 2}), -20, 2);
    EXPECT_NEAR(draws.log_prob[i], sample.log_prob[0].item<double>(), 2e-2);
  }
}

TEST(PolicyTest, ChoicesComeAsOftenAsTheirProbabilitySays) {
  PolicyMetadata metadata = Metadata();
  metadata.distribution = Distribution::kCategorical;
  metadata.num_choices = {3, 2};
  const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ((*policy)->metadata().num_choices, metadata.num_choices);
  const Draws draws(**policy, 20000);
  const std::vector<double> logits = HeadAt(metadata);
  const auto probability = [&](int first, int n, int choice) {
    double sum = 0;
    for (int k = 0; k < n; ++k) sum += std::exp(logits[first + k]);
    return std::exp(logits[first + choice]) / sum;
  };
  std::vector<double> counts(5);
  for (int64_t i = 0; i < draws.n; ++i) {
    const int a = static_cast<int>(draws.env[2 * i]), b = static_cast<int>(draws.env[2 * i + 1]);
    ASSERT_TRUE(a >= 0 && a < 3 && b >= 0 && b < 2);
    ++counts[a];
    ++counts[3 + b];
    ASSERT_NEAR(draws.log_prob[i], std::log(probability(0, 3, a) * probability(3, 2, b)), 1e-4);
  }
  for (int k = 0; k < 5; ++k) {
    const double p = k < 3 ? probability(0, 3, k) : probability(3, 2, k - 3);
    EXPECT_NEAR(counts[k] / 20000, p, 4 * std::sqrt(p * (1 - p) / 20000)) << k;
  }
  std::vector<float> mode(2);
  ASSERT_TRUE((*policy)->Mode({0.1f, -0.2f, 0.3f}, 1, absl::MakeSpan(mode)).ok());
  EXPECT_EQ(mode[0], std::max_element(logits.begin(), logits.begin() + 3) - logits.begin());
  EXPECT_EQ(mode[1], std::max_element(logits.begin() + 3, logits.end()) - logits.begin() - 3);
}

TEST(PolicyTest, TheSameSeedGivesTheSameActions) {
  const auto policy = Policy::FromSnapshot(MakeSnapshot(Metadata()));
  const std::vector<float> observations = Observations(4);
  (*policy)->Seed(5);
  const std::vector<float> first = Act(**policy, observations, false);
  EXPECT_NE(Act(**policy, observations, false), first);
  (*policy)->Seed(5);
  EXPECT_EQ(Act(**policy, observations, false), first);
}

TEST(PolicyTest, ActionsThatAreNoNumbersAreAnError) {
  const PolicyMetadata metadata = Metadata();
  FlatParameters network = Network(metadata);
  network.values().mul_(1e30);  // each is finite, their products are not
  const Snapshot snapshot{.run = metadata.run,
                          .version = metadata.version,
                          .image = EncodePolicy(metadata, network).value()};
  const auto policy = Policy::FromSnapshot(snapshot);
  ASSERT_TRUE(policy.ok()) << policy.status();
  std::vector<float> actions(kActions);
  const absl::Status status = (*policy)->Mode(Observations(1), 1, absl::MakeSpan(actions));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

TEST(PolicyTest, ASpreadTooLargeForNumbersIsAnErrorAndReachesNoRow) {
  const PolicyMetadata metadata = GaussianMetadata(/*squash=*/false);
  FlatParameters network = Network(metadata);
  network.frozen().back().fill_(1000);  // of log_std
  const Snapshot snapshot{.run = metadata.run,
                          .version = metadata.version,
                          .image = EncodePolicy(metadata, network).value()};
  const auto policy = Policy::FromSnapshot(snapshot);
  ASSERT_TRUE(policy.ok()) << policy.status();
  std::vector<float> actions(kActions), rows(kActions), log_probs(1);
  const absl::Status status =
      (*policy)->Sample(Observations(1), 1,
                        {absl::MakeSpan(actions), absl::MakeSpan(rows), absl::MakeSpan(log_probs)});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

TEST(PolicyTest, SpansOfTheWrongSizeAreRefused) {
  const auto policy = Policy::FromSnapshot(MakeSnapshot(Metadata()));
  const std::vector<float> observations = Observations(4);
  std::vector<float> actions(7);
  const auto span = absl::MakeSpan(actions);
  EXPECT_EQ((*policy)->Mode(observations, 4, span).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE((*policy)->Mode(observations, 3, span).ok());
  EXPECT_FALSE((*policy)->Mode({}, 0, {}).ok());
  const auto sample = [&](size_t env, size_t row, size_t log_prob) {
    std::vector<float> a(env), b(row), c(log_prob);
    return (*policy)
        ->Sample(observations, 4, {absl::MakeSpan(a), absl::MakeSpan(b), absl::MakeSpan(c)})
        .ok();
  };
  EXPECT_TRUE(sample(8, 8, 4));
  EXPECT_FALSE(sample(7, 8, 4));
  EXPECT_FALSE(sample(8, 7, 4));
  EXPECT_FALSE(sample(8, 8, 3));
}

TEST(PolicyTest, ANormalizerIsApplied) {
  const Snapshot plain = MakeSnapshot(Metadata());
  const auto image = Safetensors::Parse(plain.image);
  std::vector<TensorView> tensors;
  for (const auto& [name, tensor] : image->tensors()) tensors.push_back(tensor);
  const float mean[] = {1, 2, 3}, std[] = {0.5, 2, 4};
  for (const auto& [name, values] :
       {std::pair("normalizer.mean", mean), std::pair("normalizer.std", std)}) {
    tensors.push_back(
        {name, proto::FLOAT32, {3}, absl::string_view(reinterpret_cast<const char*>(values), 12)});
  }
  Snapshot snapshot = plain;
  snapshot.image = *EncodeSafetensors(tensors, image->metadata());
  const auto normalized = Policy::FromSnapshot(snapshot);
  ASSERT_TRUE(normalized.ok()) << normalized.status();
  const auto policy = Policy::FromSnapshot(plain);
  EXPECT_EQ(Act(**normalized, {2, 6, -1}, true), Act(**policy, {2, 2, -1}, true));
}

PolicyMetadata WithMemory(proto::RecurrenceKind kind) {
  PolicyMetadata metadata = Metadata();
  metadata.recurrence.set_kind(kind);
  metadata.recurrence.set_units(5);
  return metadata;
}

// Three observations of two environments, one after another; the states after each.
std::vector<std::vector<float>> Remember(Policy& policy, bool deterministic) {
  std::vector<float> state(2 * StateSize(policy.metadata().recurrence));
  std::vector<std::vector<float>> states;
  for (int t = 0; t < 3; ++t) {
    std::vector<float> observations = Observations(2), actions(2 * kActions), log_probs(2);
    for (float& x : observations) x *= static_cast<float>(t + 1);
    const MemorySpans memory{state, absl::MakeSpan(state)};
    const auto out = absl::MakeSpan(actions);
    std::vector<float> row(actions.size());
    const absl::Status acted =
        deterministic
            ? policy.Mode(observations, 2, out, memory)
            : policy.Sample(observations, 2, {out, absl::MakeSpan(row), absl::MakeSpan(log_probs)},
                            memory);
    EXPECT_TRUE(acted.ok()) << acted;
    states.push_back(state);
  }
  return states;
}

TEST(PolicyTest, AMemoryGoesOnFromStepToStepWhateverIsDone) {
  for (const proto::RecurrenceKind kind : {proto::GRU, proto::LSTM}) {
    PolicyMetadata metadata = WithMemory(kind);
    const auto policy = Policy::FromSnapshot(MakeSnapshot(metadata));
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ((*policy)->metadata().recurrence.units(), 5);
    const auto states = Remember(**policy, /*deterministic=*/true);
    EXPECT_EQ(states, Remember(**policy, /*deterministic=*/false));
    metadata.warmup = true;
    const auto warm = Policy::FromSnapshot(MakeSnapshot(metadata));
    EXPECT_EQ(states, Remember(**warm, /*deterministic=*/false));

    const FlatParameters network = Network(metadata);
    torch::Tensor state = torch::zeros({2, StateSize(metadata.recurrence)});
    for (int t = 0; t < 3; ++t) {
      std::vector<float> observations = Observations(2);
      for (float& x : observations) x *= static_cast<float>(t + 1);
      state = RecurrentStep(PolicyMemory(metadata), network.frozen(),
                            torch::tensor(observations).view({2, kObservations}), state);
      EXPECT_TRUE(state.flatten().equal(torch::tensor(states[t]))) << t;
    }
  }
}

TEST(PolicyTest, ActionsDependOnWhatIsRemembered) {
  const auto policy = Policy::FromSnapshot(MakeSnapshot(WithMemory(proto::GRU)));
  const auto act = [&](float remembered) {
    std::vector<float> actions(kActions), before(5, remembered), after(5);
    EXPECT_TRUE(
        (*policy)
            ->Mode(Observations(1), 1, absl::MakeSpan(actions), {before, absl::MakeSpan(after)})
            .ok());
    return actions;
  };
  EXPECT_EQ(act(0.5), act(0.5));
  EXPECT_NE(act(0.5), act(-0.5));
}

TEST(PolicyTest, StatesOfAnotherSizeAreRefusedWithTheNumbers) {
  const auto policy = Policy::FromSnapshot(MakeSnapshot(WithMemory(proto::LSTM)));
  std::vector<float> actions(kActions), state(9);
  const absl::Status status =
      (*policy)->Mode(Observations(1), 1, absl::MakeSpan(actions), {state, absl::MakeSpan(state)});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              HasSubstr("states of 10 and stacks of images of 0, but spans of 3, 2, 9, 9 and 0"));
}

// So that what older programs wrote and read stays the same, byte by byte.
TEST(PolicyTest, ASnapshotWithoutAMemorySaysNothingOfOne) {
  const Snapshot snapshot = MakeSnapshot(Metadata());
  EXPECT_EQ(snapshot.image.find("recurr"), std::string::npos);
}

// A snapshot's content, to be broken.
struct Parts {
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;

  TensorView& tensor(const std::string& name) {
    for (TensorView& t : tensors) {
      if (t.name == name) return t;
    }
    ADD_FAILURE() << name;
    return tensors[0];
  }
};

struct BrokenCase {
  std::string name;
  std::function<void(Parts&)> change;
  std::string expected;
};

class BrokenPolicy : public testing::TestWithParam<BrokenCase> {};

TEST_P(BrokenPolicy, IsRefusedNamingTheFault) {
  Snapshot snapshot = MakeSnapshot(Metadata());
  const std::string original = snapshot.image;
  const auto image = Safetensors::Parse(original);
  Parts parts{{}, image->metadata()};
  for (const auto& [name, tensor] : image->tensors()) parts.tensors.push_back(tensor);
  GetParam().change(parts);
  snapshot.image = EncodeSafetensors(parts.tensors, parts.metadata).value();
  const auto policy = Policy::FromSnapshot(snapshot);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(policy.status().message(), HasSubstr(GetParam().expected));
}

std::function<void(Parts&)> Set(const std::string& key, const std::string& value) {
  return [=](Parts& parts) { parts.metadata[key] = value; };
}

const char kNan[] = "\x00\x00\xc0\x7f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

INSTANTIATE_TEST_SUITE_P(
    Snapshots, BrokenPolicy,
    testing::Values(
        BrokenCase{"OtherShape",
                   [](Parts& p) {
                     p.tensor("actor.hidden.0.weight").shape = {8, 3};
                   },
                   "'actor.hidden.0.weight' FLOAT32[8,3], expected 'actor.hidden.0.weight' "
                   "FLOAT32[3,8]"},
        BrokenCase{"OtherDtype", [](Parts& p) { p.tensor("actor.head.bias").dtype = proto::INT32; },
                   "'actor.head.bias' INT32[4], expected"},
        BrokenCase{
            "NotFinite",
            [](Parts& p) { p.tensor("actor.head.bias").bytes = absl::string_view(kNan, 16); },
            "'actor.head.bias': element 0 is nan"},
        BrokenCase{"MissingTensor", [](Parts& p) { p.tensors.erase(p.tensors.begin()); },
                   "no tensor 'actor.head.bias'"},
        BrokenCase{"ForeignTensor", [](Parts& p) { p.tensor("actor.head.bias").name = "x"; },
                   "'actor.head.bias'"},
        BrokenCase{"OneMoreTensor",
                   [](Parts& p) {
                     p.tensors.push_back({"x", proto::UINT8, {0}, ""});
                   },
                   "'x' UINT8[0] is not of the policy"},
        BrokenCase{"NoVersion", [](Parts& p) { p.metadata.erase("version"); }, "'version'"},
        BrokenCase{"OtherVersion", Set("version", "78"), "holds policy 78"},
        BrokenCase{"OtherRun", Set("run", "hopper"), "of run 'hopper'"},
        BrokenCase{"OtherFormat", Set("format", "troupe.policy.9"), "'troupe.policy.9'"},
        BrokenCase{"NegativeSteps", Set("env_steps", "-1"), "'env_steps'"},
        BrokenCase{"HugeObservation", Set("observation_size", "99999999999"), "observation_size"},
        BrokenCase{"OtherObservation", Set("observation_size", "4"), "FLOAT32[4,8]"},
        BrokenCase{"HugeNetwork", Set("network", R"({"hiddenSizes":[65536,65536]})"),
                   "FLOAT32[3,65536]"},
        BrokenCase{"ZeroWidth", Set("network", R"({"hiddenSizes":[0]})"), "'network'"},
        BrokenCase{"NoJson", Set("network", "{"), "'network'"},
        BrokenCase{"MemoryWithoutTensors", Set("recurrence", R"({"kind":"GRU","units":8})"),
                   "expected 'actor.hidden.0.weight' FLOAT32[11,8]"},
        BrokenCase{"MemoryWithoutUnits", Set("recurrence", R"({"kind":"GRU","units":0})"),
                   "'recurrence'"},
        BrokenCase{"HugeMemory", Set("recurrence", R"({"kind":"LSTM","units":2147483647})"),
                   "'recurrence'"},
        BrokenCase{"MemoryOfNoKind", Set("recurrence", "{}"), "'recurrence'"},
        BrokenCase{"OneBoundTooFew", Set("action_low", "[-1]"), "'action_low'"},
        BrokenCase{"BoundIsAString", Set("action_low", "[-1,\"0\"]"), "'action_low'"},
        BrokenCase{"BoundsAreNoArray", Set("action_low", "{\"a\":1,\"b\":2}"), "'action_low'"},
        BrokenCase{"LowAboveHigh", Set("action_low", "[1,0]"), "'action_low'"},
        BrokenCase{"BoundIsNoFloat32", Set("action_low", "[-1e39,0]"), "'action_low'"},
        BrokenCase{"StdBoundsSwapped", Set("log_std_min", "3"), "'log_std_min'"},
        BrokenCase{"StdIsNan", Set("log_std_max", "nan"), "'log_std_max'"}),
    [](const auto& info) { return info.param.name; });

TEST(PolicyTest, NoFlippedBitOfASnapshotCrashesIt) {
  const Snapshot snapshot = MakeSnapshot(Metadata());
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    Snapshot broken = snapshot;
    broken.image[random() % 1400 % broken.image.size()] ^= static_cast<char>(1 << random() % 8);
    const auto policy = Policy::FromSnapshot(broken);
    if (policy.ok()) continue;
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument) << policy.status();
  }
}

}  // namespace
}  // namespace troupe
