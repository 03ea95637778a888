// The actor's own forward for tests of exported policies, on files of float32 numbers.
//
//   policy_forward make D                    writes a policy of every kind, D/KIND.safetensors
//   policy_forward act IMAGE IN OUT          IN: n observations, then n states; OUT: the mode's
//                                            actions and states, then of a draw what the
//                                            environment gets, what a row gets, and log_prob
//   policy_forward torchscript FILE IN OUT N OBSERVATION_SIZE STATE_SIZE
//                                            the same inputs to a TorchScript file; OUT: all it
//                                            gives
#include <torch/script.h>
#include <torch/torch.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "common/flat_parameters.h"
#include "common/policy.h"
#include "common/policy_codec.h"
#include "common/recurrence.h"

namespace troupe {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kObservationSize = 5;

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "policy_forward: " << what << "\n";
  std::exit(1);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::string& path, const char* data, size_t size) {
  std::ofstream file(path, std::ios::binary);
  file.write(data, static_cast<std::streamsize>(size));
  if (!file.flush()) Fail("cannot write " + path);
}

Floats ReadFloats(const std::string& path) {
  const std::string bytes = ReadFile(path);
  Floats values(bytes.size() / sizeof(float));
  bytes.copy(reinterpret_cast<char*>(values.data()), values.size() * sizeof(float));
  return values;
}

struct Kind {
  std::string name;
  Distribution distribution;
  proto::Activation activation = proto::RELU;
  bool layer_norm = false;
  bool squash = false;
  bool normalized = false;
  proto::RecurrenceKind memory = proto::NO_RECURRENCE;
  std::vector<int64_t> num_choices = {};
};

const std::vector<Kind>& Kinds() {
  static const auto* const kinds = new std::vector<Kind>{
      {.name = "sac", .distribution = Distribution::kSquashedGaussian},
      {.name = "sac_layer_norm",
       .distribution = Distribution::kSquashedGaussian,
       .activation = proto::ELU,
       .layer_norm = true},
      {.name = "sac_gru", .distribution = Distribution::kSquashedGaussian, .memory = proto::GRU},
      {.name = "ppo_clipped",
       .distribution = Distribution::kGaussian,
       .activation = proto::TANH,
       .normalized = true},
      {.name = "ppo_squashed",
       .distribution = Distribution::kGaussian,
       .activation = proto::TANH,
       .squash = true},
      {.name = "ppo_lstm",
       .distribution = Distribution::kGaussian,
       .normalized = true,
       .memory = proto::LSTM},
      {.name = "ppo_choice",
       .distribution = Distribution::kCategorical,
       .activation = proto::TANH,
       .num_choices = {4}},
      {.name = "ppo_choices",
       .distribution = Distribution::kCategorical,
       .normalized = true,
       .memory = proto::GRU,
       .num_choices = {3, 2, 6}}};
  return *kinds;
}

PolicyMetadata MetadataOf(const Kind& kind) {
  PolicyMetadata metadata{.run = "export_test",
                          .version = (uint64_t{1} << 40) + 7,
                          .env_steps = 1234,
                          .updates = 56,
                          .observation_size = kObservationSize,
                          .distribution = kind.distribution};
  metadata.network.add_hidden_sizes(16);
  metadata.network.add_hidden_sizes(12);
  metadata.network.set_activation(kind.activation);
  metadata.network.set_layer_norm(kind.layer_norm);
  if (kind.memory != proto::NO_RECURRENCE) {
    metadata.recurrence.set_kind(kind.memory);
    metadata.recurrence.set_units(6);
  }
  if (kind.normalized) metadata.observation_clip = 1.5;
  metadata.num_choices = kind.num_choices;
  metadata.action_size = static_cast<int64_t>(kind.num_choices.size());
  if (!kind.num_choices.empty()) return metadata;
  metadata.action_size = 3;
  metadata.action_low = {-1, -2, 0.5};
  metadata.action_high = {1, 3, 0.75};
  metadata.log_std_min = -2;
  metadata.log_std_max = 0.5;
  metadata.squash = kind.squash;
  return metadata;
}

void Make(const std::string& folder) {
  std::filesystem::create_directories(folder);
  uint64_t seed = 0;
  for (const Kind& kind : Kinds()) {
    const PolicyMetadata metadata = MetadataOf(kind);
    FlatParameters actor(PolicyParameters(metadata), torch::kFloat32);
    torch::manual_seed(++seed);
    const torch::NoGradGuard no_grad;
    actor.values().normal_(0, 0.6);
    PolicyStatistics statistics;
    if (kind.normalized) {
      statistics = {torch::randn({kObservationSize}), torch::rand({kObservationSize}) + 0.5,
                    torch::ones({1})};
    }
    const absl::StatusOr<std::string> image = EncodePolicy(metadata, actor, statistics);
    if (!image.ok()) Fail(image.status().ToString());
    WriteFile(folder + "/" + kind.name + ".safetensors", image->data(), image->size());
  }
}

void Act(const std::string& image, const std::string& in, const std::string& out) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::FromImage(ReadFile(image));
  if (!policy.ok()) Fail(policy.status().ToString());
  const PolicyMetadata& metadata = (*policy)->metadata();
  const int64_t state_size = StateSize(metadata.recurrence);
  const Floats inputs = ReadFloats(in);
  const auto n = static_cast<int64_t>(inputs.size()) / (metadata.observation_size + state_size);
  const size_t actions = n * metadata.action_size, states = n * state_size;
  const absl::Span<const float> all(inputs);
  const auto observations = all.subspan(0, n * metadata.observation_size);
  const auto before = all.subspan(observations.size(), states);
  Floats results(3 * actions + 2 * states + n);
  const absl::Span<float> given = absl::MakeSpan(results);
  absl::Status status = (*policy)->Mode(observations, n, given.subspan(0, actions),
                                        {before, given.subspan(actions, states)});
  const absl::Span<float> drawn = given.subspan(actions + states);
  status.Update((*policy)->Sample(
      observations, n,
      {drawn.subspan(0, actions), drawn.subspan(actions, actions), drawn.subspan(2 * actions, n)},
      {before, drawn.subspan(2 * actions + n, states)}));
  if (!status.ok()) Fail(status.ToString());
  WriteFile(out, reinterpret_cast<const char*>(results.data()), results.size() * sizeof(float));
}

// `words`: FILE IN OUT N OBSERVATION_SIZE STATE_SIZE.
void RunTorchScript(const std::vector<std::string>& words) {
  torch::jit::Module module = torch::jit::load(words[0]);
  Floats inputs = ReadFloats(words[1]);
  const int64_t n = std::stoll(words[3]), width = std::stoll(words[4]);
  const int64_t state_size = std::stoll(words[5]);
  std::vector<torch::jit::IValue> arguments = {torch::from_blob(inputs.data(), {n, width})};
  if (state_size > 0) {
    arguments.emplace_back(torch::from_blob(inputs.data() + n * width, {n, state_size}));
  }
  const c10::InferenceMode inference;
  const torch::jit::IValue given = module.forward(arguments);
  std::vector<torch::Tensor> tensors;
  if (given.isTensor()) {
    tensors = {given.toTensor()};
  } else {
    for (const torch::jit::IValue& value : given.toTuple()->elements()) {
      tensors.push_back(value.toTensor());
    }
  }
  for (torch::Tensor& tensor : tensors) tensor = tensor.to(torch::kFloat32).flatten();
  const torch::Tensor all = torch::cat(tensors).contiguous();
  WriteFile(words[2], static_cast<const char*>(all.data_ptr()), all.numel() * sizeof(float));
}

int Main(const std::vector<std::string>& words) {
  const std::string command = words.empty() ? "" : words[0];
  const std::vector<std::string> rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (command == "make" && rest.size() == 1) {
    Make(rest[0]);
  } else if (command == "act" && rest.size() == 3) {
    Act(rest[0], rest[1], rest[2]);
  } else if (command == "torchscript" && rest.size() == 6) {
    RunTorchScript(rest);
  } else {
    Fail("make D | act IMAGE IN OUT | torchscript FILE IN OUT N OBSERVATION_SIZE STATE_SIZE");
  }
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main({argv + 1, argv + argc}); }
