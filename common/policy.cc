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
#include "common/image_encoder.h"
#include "common/mlp.h"
#include "common/normalizer.h"
#include "common/policy_codec.h"
#include "common/policy_head.h"
#include "common/recurrent.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"

namespace troupe {
namespace {

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
  if (image.tensors().count(kRewardStd) > 0) {
    known.insert(kRewardStd);
    if (auto found = image.Find(kRewardStd, proto::FLOAT32, {1}); !found.ok()) {
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

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

absl::StatusOr<std::optional<Normalizer>> ReadNormalizer(const Safetensors& image, int64_t size,
                                                         double clip) {
  if (image.tensors().count(kNormalizerMean) == 0) return std::nullopt;
  const auto mean = ReadTensor(image, kNormalizerMean, torch::kFloat32, {size});
  if (!mean.ok()) return mean.status();
  const auto std = ReadTensor(image, kNormalizerStd, torch::kFloat32, {size});
  if (!std.ok()) return std.status();
  if (std->min().item<float>() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", kNormalizerStd, "': ", std->min().item<float>(), " is no std"));
  }
  return Normalizer{*mean, std->reciprocal(), clip};
}

}  // namespace

struct Policy::Impl {
  Impl(PolicyMetadata policy_metadata, MlpShape network_shape)
      : metadata(std::move(policy_metadata)),
        shape(std::move(network_shape)),
        recurrence(PolicyMemory(metadata)),
        encoder(EncoderOf(metadata)),
        first_of_encoder(RecurrentParameters(shape, recurrence).size()),
        first_feature(first_of_encoder + ConvolutionParameters(encoder).size()),
        actor(PolicyParameters(metadata), torch::kFloat32) {}

  // What the network says of `n` observations, [n, HeadSize], contiguous; the memory goes on.
  torch::Tensor Forward(absl::Span<const float> observations, int64_t n, const MemorySpans& memory,
                        absl::Span<const uint8_t> images) const;
  // Features of images, [n, features].
  torch::Tensor Look(absl::Span<const uint8_t> images, int64_t n) const;
  // `x` beside the memory's output, which goes on.
  torch::Tensor Remember(const torch::Tensor& x, const MemorySpans& memory) const;
  absl::Status CheckSizes(size_t observations, int64_t n, size_t actions, const MemorySpans& memory,
                          size_t images) const;
  absl::Status NotANumber() const;
  void DrawUniformly(int64_t n, const ActionSpans& actions);
  absl::Status Draw(const torch::Tensor& head, int64_t n, const ActionSpans& actions);
  DrawnAction Row(const ActionSpans& actions, int64_t i) const;

  const PolicyMetadata metadata;
  const MlpShape shape;
  const RecurrentLayer recurrence;
  const ImageEncoderShape encoder;
  const size_t first_of_encoder, first_feature;  // among the parameters
  FlatParameters actor;
  std::optional<Normalizer> normalizer;
  std::mt19937_64 random{0};
};

torch::Tensor Policy::Impl::Remember(const torch::Tensor& x, const MemorySpans& memory) const {
  const torch::Tensor before =
      torch::from_blob(const_cast<float*>(memory.before.data()),
                       {x.size(0), StateSize(recurrence.spec)}, torch::kFloat32);
  const torch::Tensor after = RecurrentStep(recurrence, actor.frozen(), x, before).contiguous();
  std::copy_n(after.data_ptr<float>(), memory.after.size(), memory.after.data());
  return torch::cat({x, after.narrow(1, 0, recurrence.spec.units())}, 1);
}

torch::Tensor Policy::Impl::Look(absl::Span<const uint8_t> images, int64_t n) const {
  const torch::Tensor frames = torch::from_blob(
      const_cast<uint8_t*>(images.data()),
      {n, encoder.spec.frame_stack(), encoder.height, encoder.width, encoder.channels},
      torch::kUInt8);
  const torch::Tensor* const parameters = actor.frozen().data();
  return Features(encoder, parameters + first_feature,
                  Convolve(encoder, parameters + first_of_encoder, frames));
}

torch::Tensor Policy::Impl::Forward(absl::Span<const float> observations, int64_t n,
                                    const MemorySpans& memory,
                                    absl::Span<const uint8_t> images) const {
  const c10::InferenceMode inference;
  torch::Tensor x = torch::from_blob(const_cast<float*>(observations.data()),
                                     {n, metadata.observation_size}, torch::kFloat32);
  if (normalizer) x = normalizer->Apply(x);
  if (encoder.has_images()) x = torch::cat({x, Look(images, n)}, 1);
  if (HasMemory(recurrence.spec)) x = Remember(x, memory);
  return MlpForward(shape, actor.frozen(), std::move(x)).contiguous();
}

absl::Status Policy::Impl::CheckSizes(size_t observations, int64_t n, size_t actions,
                                      const MemorySpans& memory, size_t images) const {
  const int64_t state_size = StateSize(metadata.recurrence);
  const int64_t stack_bytes =
      encoder.spec.frame_stack() * encoder.height * encoder.width * encoder.channels;
  const auto is = [n](size_t size, int64_t wanted) {
    return static_cast<int64_t>(size) == n * wanted;
  };
  if (n >= 1 && is(observations, metadata.observation_size) && is(actions, metadata.action_size) &&
      is(memory.before.size(), state_size) && is(memory.after.size(), state_size) &&
      is(images, stack_bytes)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(n, " observations of ", metadata.observation_size, ", actions of ",
                   metadata.action_size, ", states of ", state_size, " and stacks of images of ",
                   stack_bytes, ", but spans of ", observations, ", ", actions, ", ",
                   memory.before.size(), ", ", memory.after.size(), " and ", images));
}

absl::Status Policy::Impl::NotANumber() const {
  return absl::DataLossError(absl::StrCat("policy ", metadata.version,
                                          " gives actions that are not numbers: its weights, or "
                                          "the observations, are too large"));
}

// Where the action of observation `i` goes.
DrawnAction Policy::Impl::Row(const ActionSpans& actions, int64_t i) const {
  const int64_t size = metadata.action_size;
  return {actions.env.subspan(i * size, size), actions.row.subspan(i * size, size),
          &actions.log_prob[i]};
}

void Policy::Impl::DrawUniformly(int64_t n, const ActionSpans& actions) {
  for (int64_t i = 0; i < n; ++i) {
    const DrawnAction out = Row(actions, i);
    DrawUniform(metadata, random, out.env);
    std::copy(out.env.begin(), out.env.end(), out.row.begin());
    *out.log_prob = 0;
  }
}

absl::Status Policy::Impl::Draw(const torch::Tensor& head, int64_t n, const ActionSpans& actions) {
  const float* log_std = metadata.distribution == Distribution::kGaussian
                             ? actor.frozen().back().data_ptr<float>()
                             : nullptr;
  for (int64_t i = 0; i < n; ++i) {
    const float* of_row = head.data_ptr<float>() + i * head.size(1);
    if (!DrawAction(metadata, of_row, log_std, random, Row(actions, i))) return NotANumber();
  }
  return absl::OkStatus();
}

Policy::Policy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Policy::~Policy() = default;

absl::StatusOr<std::unique_ptr<Policy>> Policy::FromSnapshot(const Snapshot& snapshot) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = FromImage(snapshot.image);
  if (!policy.ok()) return policy.status();
  const PolicyMetadata& metadata = (*policy)->metadata();
  if (metadata.version == snapshot.version && metadata.run == snapshot.run) return policy;
  return absl::InvalidArgumentError(absl::StrCat("snapshot ", snapshot.version, " of run '",
                                                 snapshot.run, "' holds policy ", metadata.version,
                                                 " of run '", metadata.run, "'"));
}

absl::StatusOr<std::unique_ptr<Policy>> Policy::FromImage(const std::string& bytes) {
  const absl::StatusOr<Safetensors> image = Safetensors::Parse(bytes);
  if (!image.ok()) return image.status();
  absl::StatusOr<PolicyMetadata> metadata = ParsePolicyMetadata(*image);
  if (!metadata.ok()) return metadata.status();
  MlpShape shape = PolicyShape(*metadata);
  const int64_t observation_size = metadata->observation_size;
  absl::Status status = CheckTensors(*image, PolicyParameters(*metadata), observation_size);
  if (!status.ok()) return status;
  absl::StatusOr<std::optional<Normalizer>> normalizer =
      ReadNormalizer(*image, observation_size, metadata->observation_clip);
  if (!normalizer.ok()) return normalizer.status();
  auto impl = std::make_unique<Impl>(*std::move(metadata), std::move(shape));
  impl->normalizer = *std::move(normalizer);
  if (status = impl->actor.Load(kActorPrefix, *image); !status.ok()) return status;
  return absl::WrapUnique(new Policy(std::move(impl)));
}

const PolicyMetadata& Policy::metadata() const { return impl_->metadata; }

absl::Status Policy::Sample(absl::Span<const float> observations, int64_t n,
                            const ActionSpans& actions, const MemorySpans& memory,
                            absl::Span<const uint8_t> images) {
  const size_t size = observations.size();
  absl::Status status = impl_->CheckSizes(size, n, actions.env.size(), memory, images.size());
  status.Update(impl_->CheckSizes(size, n, actions.row.size(), memory, images.size()));
  if (!status.ok()) return status;
  if (static_cast<int64_t>(actions.log_prob.size()) != n) {
    return absl::InvalidArgumentError(
        absl::StrCat(n, " observations, but room for ", actions.log_prob.size(), " log_prob"));
  }
  if (metadata().warmup) impl_->DrawUniformly(n, actions);
  // A memory is kept in warm-up too: its rows are learned from like any others.
  if (metadata().warmup && memory.after.empty()) return absl::OkStatus();
  try {
    const torch::Tensor head = impl_->Forward(observations, n, memory, images);
    if (!AllFinite(memory.after)) return impl_->NotANumber();
    return metadata().warmup ? absl::OkStatus() : impl_->Draw(head, n, actions);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("forward of ", n, " observations: ", e.what()));
  }
}

absl::Status Policy::Mode(absl::Span<const float> observations, int64_t n,
                          absl::Span<float> actions, const MemorySpans& memory,
                          absl::Span<const uint8_t> images) {
  absl::Status status =
      impl_->CheckSizes(observations.size(), n, actions.size(), memory, images.size());
  if (!status.ok()) return status;
  try {
    const torch::Tensor head = impl_->Forward(observations, n, memory, images);
    if (!AllFinite(memory.after)) return impl_->NotANumber();
    const int64_t size = metadata().action_size;
    for (int64_t i = 0; i < n; ++i) {
      const float* of_row = head.data_ptr<float>() + i * head.size(1);
      if (!ModeAction(metadata(), of_row, actions.subspan(i * size, size))) {
        return impl_->NotANumber();
      }
    }
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("forward of ", n, " observations: ", e.what()));
  }
  return absl::OkStatus();
}

void Policy::Seed(uint64_t seed) { impl_->random.seed(seed); }

}  // namespace troupe
