#include "common/policy.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/flat_parameters.h"
#include "common/mlp.h"
#include "common/policy_codec.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"

namespace troupe {
namespace {

constexpr char kNormalizerMean[] = "normalizer.mean";
constexpr char kNormalizerStd[] = "normalizer.std";

// Are the image's tensors those of the network, and no others?  Asked before anything is
// allocated, so that sizes in the metadata are bounded by the bytes that came.
absl::Status CheckTensors(const Safetensors& image, const std::vector<ParameterSpec>& specs,
                          int64_t observation_size) {
  std::set<std::string> known;
  for (const ParameterSpec& spec : specs) {
    const std::string name = kActorPrefix + spec.name;
    known.insert(name);
    if (auto found = image.Find(name, proto::FLOAT32, spec.shape); !found.ok()) {
      return found.status();
    }
  }
  const bool normalized = image.tensors().count(kNormalizerMean) > 0;
  for (const char* name : {kNormalizerMean, kNormalizerStd}) {
    if (!normalized) continue;
    known.insert(name);
    if (auto found = image.Find(name, proto::FLOAT32, {observation_size}); !found.ok()) {
      return found.status();
    }
  }
  for (const auto& [name, tensor] : image.tensors()) {
    if (known.count(name) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", DescribeTensor(tensor), " is not of the policy"));
    }
  }
  return absl::OkStatus();
}

struct Normalizer {
  torch::Tensor mean, inverse_std;  // [observation_size]
};

absl::StatusOr<std::optional<Normalizer>> ReadNormalizer(const Safetensors& image, int64_t size) {
  if (image.tensors().count(kNormalizerMean) == 0) return std::nullopt;
  const auto mean = ReadTensor(image, kNormalizerMean, torch::kFloat32, {size});
  if (!mean.ok()) return mean.status();
  const auto std = ReadTensor(image, kNormalizerStd, torch::kFloat32, {size});
  if (!std.ok()) return std.status();
  if (std->min().item<float>() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", kNormalizerStd, "': ", std->min().item<float>(), " is no std"));
  }
  return Normalizer{*mean, std->reciprocal()};
}

}  // namespace

struct Policy::Impl {
  Impl(PolicyMetadata policy_metadata, MlpShape network_shape)
      : metadata(std::move(policy_metadata)),
        shape(std::move(network_shape)),
        actor(MlpParameters(shape), torch::kFloat32) {}

  // Means and log standard deviations, [n, 2 * action_size], contiguous.
  torch::Tensor Forward(absl::Span<const float> observations, int64_t n) const;
  // (-1, 1) to native units.
  float ToNative(double action, int64_t i) const;
  void FillUniform(absl::Span<float> actions);
  // False: some of the network's outputs are no numbers.
  bool FillFromHead(const float* head, bool deterministic, absl::Span<float> actions);

  const PolicyMetadata metadata;
  const MlpShape shape;
  FlatParameters actor;
  std::optional<Normalizer> normalizer;
  std::mt19937_64 random{0};
};

torch::Tensor Policy::Impl::Forward(absl::Span<const float> observations, int64_t n) const {
  const c10::InferenceMode inference;
  torch::Tensor x = torch::from_blob(const_cast<float*>(observations.data()),
                                     {n, metadata.observation_size}, torch::kFloat32);
  if (normalizer) x = (x - normalizer->mean) * normalizer->inverse_std;
  return MlpForward(shape, actor.frozen(), std::move(x)).contiguous();
}

float Policy::Impl::ToNative(double action, int64_t i) const {
  const double low = metadata.action_low[i], high = metadata.action_high[i];
  return static_cast<float>(std::clamp(low + 0.5 * (action + 1) * (high - low), low, high));
}

void Policy::Impl::FillUniform(absl::Span<float> actions) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (size_t i = 0; i < actions.size(); ++i) {
    actions[i] = ToNative(uniform(random), static_cast<int64_t>(i) % metadata.action_size);
  }
}

bool Policy::Impl::FillFromHead(const float* head, bool deterministic, absl::Span<float> actions) {
  const int64_t size = metadata.action_size;
  std::normal_distribution<double> normal;
  for (size_t row = 0; row < actions.size() / size; ++row, head += 2 * size) {
    for (int64_t i = 0; i < size; ++i) {
      double u = head[i];
      if (!deterministic) {
        const double log_std =
            std::clamp<double>(head[size + i], metadata.log_std_min, metadata.log_std_max);
        u += std::exp(log_std) * normal(random);
      }
      if (std::isnan(u)) return false;
      actions[row * size + i] = ToNative(std::tanh(u), i);
    }
  }
  return true;
}

Policy::Policy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Policy::~Policy() = default;

absl::StatusOr<std::unique_ptr<Policy>> Policy::FromSnapshot(const Snapshot& snapshot) {
  const absl::StatusOr<Safetensors> image = Safetensors::Parse(snapshot.image);
  if (!image.ok()) return image.status();
  absl::StatusOr<PolicyMetadata> metadata = ParsePolicyMetadata(*image);
  if (!metadata.ok()) return metadata.status();
  if (metadata->version != snapshot.version || metadata->run != snapshot.run) {
    return absl::InvalidArgumentError(
        absl::StrCat("snapshot ", snapshot.version, " of run '", snapshot.run, "' holds policy ",
                     metadata->version, " of run '", metadata->run, "'"));
  }
  MlpShape shape = PolicyShape(*metadata);
  const int64_t observation_size = metadata->observation_size;
  absl::Status status = CheckTensors(*image, MlpParameters(shape), observation_size);
  if (!status.ok()) return status;
  absl::StatusOr<std::optional<Normalizer>> normalizer = ReadNormalizer(*image, observation_size);
  if (!normalizer.ok()) return normalizer.status();
  auto impl = std::make_unique<Impl>(*std::move(metadata), std::move(shape));
  impl->normalizer = *std::move(normalizer);
  if (status = impl->actor.Load(kActorPrefix, *image); !status.ok()) return status;
  return absl::WrapUnique(new Policy(std::move(impl)));
}

const PolicyMetadata& Policy::metadata() const { return impl_->metadata; }

absl::Status Policy::Act(absl::Span<const float> observations, int64_t n, bool deterministic,
                         absl::Span<float> actions) {
  const int64_t observation_size = metadata().observation_size;
  const int64_t action_size = metadata().action_size;
  if (n < 1 || static_cast<int64_t>(observations.size()) != n * observation_size ||
      static_cast<int64_t>(actions.size()) != n * action_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(n, " observations of ", observation_size, " and actions of ", action_size,
                     ", but spans of ", observations.size(), " and ", actions.size()));
  }
  if (metadata().warmup && !deterministic) {
    impl_->FillUniform(actions);
    return absl::OkStatus();
  }
  try {
    const torch::Tensor head = impl_->Forward(observations, n);
    if (!impl_->FillFromHead(head.data_ptr<float>(), deterministic, actions)) {
      return absl::DataLossError(absl::StrCat("policy ", metadata().version,
                                              " gives actions that are not numbers: its weights, "
                                              "or the observations, are too large"));
    }
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("forward of ", n, " observations: ", e.what()));
  }
  return absl::OkStatus();
}

void Policy::Seed(uint64_t seed) { impl_->random.seed(seed); }

}  // namespace troupe
