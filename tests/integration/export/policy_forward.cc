// The actor's own forward for tests of exported policies.  IN holds float32 observations [N, size],
// then states [N, size], then uint8 images [N, frames, height, width, channels]; OUT float32
// numbers.
//
//   policy_forward make D                writes a policy of every kind, D/KIND.safetensors
//   policy_forward act N IMAGE IN OUT    OUT: the mode's actions and states, then of a draw what
//   the
//                                        environment gets, what a row gets, log_prob and states
//   policy_forward torchscript N IMAGE IN OUT FILE
//                                        gives FILE, TorchScript of the policy IMAGE, the same
//                                        inputs; OUT: all that it gives
#include <torch/script.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "common/flat_parameters.h"
#include "common/image_encoder.h"
#include "common/policy.h"
#include "common/policy_codec.h"
#include "common/recurrence.h"

namespace troupe {
namespace {

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

struct Kind {
  std::string name;
  Distribution distribution;
  proto::Activation activation = proto::RELU;
  bool layer_norm = false;
  bool squash = false;
  bool normalized = false;
  proto::RecurrenceKind memory = proto::NO_RECURRENCE;
  std::vector<int64_t> num_choices = {};
  int64_t observation_size = 5;
  bool sees_images = false;
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
       .num_choices = {3, 2, 6}},
      {.name = "sac_pixels",
       .distribution = Distribution::kSquashedGaussian,
       .observation_size = 0,
       .sees_images = true},
      {.name = "ppo_pixels",
       .distribution = Distribution::kCategorical,
       .normalized = true,
       .memory = proto::LSTM,
       .num_choices = {4},
       .sees_images = true}};
  return *kinds;
}

// Two frames of 14x11 pixels of three colours; neither length is a multiple of the strides.
void SetEncoder(PolicyMetadata& metadata) {
  metadata.image_shape = {14, 11, 3};
  for (const auto& [channels, kernel_size, stride] : {std::tuple(6, 4, 2), std::tuple(5, 3, 1)}) {
    proto::Convolution& layer = *metadata.encoder.add_layers();
    layer.set_channels(channels);
    layer.set_kernel_size(kernel_size);
    layer.set_stride(stride);
  }
  metadata.encoder.set_features(9);
  metadata.encoder.set_frame_stack(2);
}

PolicyMetadata MetadataOf(const Kind& kind) {
  PolicyMetadata metadata{.run = "export_test",
                          .version = (uint64_t{1} << 40) + 7,
                          .env_steps = 1234,
                          .updates = 56,
                          .observation_size = kind.observation_size,
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
  if (kind.sees_images) SetEncoder(metadata);
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

// Features in the hundreds would round away what is to be compared.  Where no LayerNorm keeps them
// small the encoder's weights are of the size that keeps them as large as the pixels (He et al.,
// arXiv 1502.01852).
void Randomize(const PolicyMetadata& metadata, FlatParameters& actor) {
  const torch::NoGradGuard no_grad;
  actor.values().normal_(0, 0.6);
  if (EncoderOf(metadata).layer_norm) return;
  for (size_t i = 0; i < actor.specs().size(); ++i) {
    const ParameterSpec& spec = actor.specs()[i];
    if (!absl::StartsWith(spec.name, "encoder.") || spec.shape.size() < 2) continue;
    const bool convolves = spec.shape.size() == 4;  // outputs first, a linear layer's inputs
    const int64_t fan_in = convolves ? actor.frozen()[i].numel() / spec.shape[0] : spec.shape[0];
    actor.frozen()[i].normal_(0, std::sqrt(2 / static_cast<double>(fan_in)));
  }
}

void Make(const std::string& folder) {
  std::filesystem::create_directories(folder);
  uint64_t seed = 0;
  for (const Kind& kind : Kinds()) {
    const PolicyMetadata metadata = MetadataOf(kind);
    FlatParameters actor(PolicyParameters(metadata), torch::kFloat32);
    torch::manual_seed(++seed);
    Randomize(metadata, actor);
    PolicyStatistics statistics;
    if (kind.normalized) {
      statistics = {torch::randn({kind.observation_size}),
                    torch::rand({kind.observation_size}) + 0.5, torch::ones({1})};
    }
    const absl::StatusOr<std::string> image = EncodePolicy(metadata, actor, statistics);
    if (!image.ok()) Fail(image.status().ToString());
    WriteFile(folder + "/" + kind.name + ".safetensors", image->data(), image->size());
  }
}

// A policy, and inputs for it.
struct Case {
  std::unique_ptr<Policy> policy;
  int64_t n;
  std::vector<float> observations, states;
  std::vector<uint8_t> images;
  std::vector<int64_t> images_shape;  // empty: none

  int64_t state_size() const { return StateSize(policy->metadata().recurrence); }
};

template <typename Number>
std::vector<Number> Take(int64_t count, std::string& bytes) {
  std::vector<Number> numbers(count);
  const size_t size = numbers.size() * sizeof(Number);
  if (bytes.size() < size) Fail("the input is too short");
  bytes.copy(reinterpret_cast<char*>(numbers.data()), size);
  bytes.erase(0, size);
  return numbers;
}

Case ReadCase(const std::string& n, const std::string& image, const std::string& in) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::FromImage(ReadFile(image));
  if (!policy.ok()) Fail(policy.status().ToString());
  Case read{.policy = *std::move(policy), .n = std::stoll(n)};
  const PolicyMetadata& metadata = read.policy->metadata();
  std::string bytes = ReadFile(in);
  read.observations = Take<float>(read.n * metadata.observation_size, bytes);
  read.states = Take<float>(read.n * read.state_size(), bytes);
  if (!metadata.image_shape.empty()) {
    read.images_shape = {read.n, metadata.encoder.frame_stack()};
    read.images_shape.insert(read.images_shape.end(), metadata.image_shape.begin(),
                             metadata.image_shape.end());
    read.images = Take<uint8_t>(c10::multiply_integers(read.images_shape), bytes);
  }
  if (!bytes.empty()) Fail("the input is too long");
  return read;
}

void Act(const Case& given, const std::string& out) {
  const size_t actions = given.n * given.policy->metadata().action_size;
  const size_t states = given.n * given.state_size(), n = given.n;
  std::vector<float> results(3 * actions + 2 * states + n);
  const absl::Span<float> all = absl::MakeSpan(results);
  absl::Status status =
      given.policy->Mode(given.observations, given.n, all.subspan(0, actions),
                         {given.states, all.subspan(actions, states)}, given.images);
  const absl::Span<float> drawn = all.subspan(actions + states);
  status.Update(given.policy->Sample(
      given.observations, given.n,
      {drawn.subspan(0, actions), drawn.subspan(actions, actions), drawn.subspan(2 * actions, n)},
      {given.states, drawn.subspan(2 * actions + n, states)}, given.images));
  if (!status.ok()) Fail(status.ToString());
  WriteFile(out, reinterpret_cast<const char*>(results.data()), results.size() * sizeof(float));
}

void RunTorchScript(Case given, const std::string& out, const std::string& file) {
  torch::jit::Module module = torch::jit::load(file);
  std::vector<torch::jit::IValue> arguments;
  const int64_t width = given.policy->metadata().observation_size;
  if (width > 0) {
    arguments.emplace_back(torch::from_blob(given.observations.data(), {given.n, width}));
  }
  if (!given.images.empty()) {
    arguments.emplace_back(
        torch::from_blob(given.images.data(), given.images_shape, torch::kUInt8));
  }
  if (given.state_size() > 0) {
    arguments.emplace_back(torch::from_blob(given.states.data(), {given.n, given.state_size()}));
  }
  const c10::InferenceMode inference;
  const torch::jit::IValue result = module.forward(arguments);
  std::vector<torch::Tensor> tensors;
  if (result.isTensor()) {
    tensors = {result.toTensor()};
  } else {
    for (const torch::jit::IValue& value : result.toTuple()->elements()) {
      tensors.push_back(value.toTensor());
    }
  }
  for (torch::Tensor& tensor : tensors) tensor = tensor.to(torch::kFloat32).flatten();
  const torch::Tensor all = torch::cat(tensors).contiguous();
  WriteFile(out, static_cast<const char*>(all.data_ptr()), all.numel() * sizeof(float));
}

int Main(const std::vector<std::string>& words) {
  const std::string command = words.empty() ? "" : words[0];
  const std::vector<std::string> rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (command == "make" && rest.size() == 1) {
    Make(rest[0]);
  } else if (command == "act" && rest.size() == 4) {
    Act(ReadCase(rest[0], rest[1], rest[2]), rest[3]);
  } else if (command == "torchscript" && rest.size() == 5) {
    RunTorchScript(ReadCase(rest[0], rest[1], rest[2]), rest[3], rest[4]);
  } else {
    Fail("make D | act N IMAGE IN OUT | torchscript N IMAGE IN OUT FILE");
  }
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main({argv + 1, argv + argc}); }
