#include "common/policy.h"

#include <cmath>
#include <functional>
#include <random>

#include "common/policy_codec.h"
#include "common/safetensors.h"
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
