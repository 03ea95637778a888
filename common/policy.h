#ifndef TROUPE_COMMON_POLICY_H_
#define TROUPE_COMMON_POLICY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/snapshot.h"
#include "proto/config.pb.h"

namespace troupe {

// What a policy's network says of actions.
enum class Distribution {
  // tanh of a Gaussian whose mean and standard deviation depend on the observation (SAC).
  kSquashedGaussian,
  // A Gaussian whose standard deviation does not (PPO); the environment gets its draw clipped to
  // the bounds, or through tanh.
  kGaussian,
  // For each element of the action one of a number of choices.
  kCategorical,
};

// What a snapshot says of itself.  It travels in the `__metadata__` of the safetensors image, under
// the keys  format ("troupe.policy.2"), run, version, env_steps, updates, warmup ("0"/"1"),
// final ("0"/"1"), observation_size, action_size, distribution ("squashed_gaussian", "gaussian",
// "categorical"), network (troupe.proto.Mlp as JSON), observation_clip; of Gaussians action_low and
// action_high (JSON arrays), of the first also log_std_min and log_std_max, of the second squash
// ("0"/"1"); of categorical ones num_choices (JSON array); of policies with a memory recurrence
// (troupe.proto.Recurrence as JSON); of policies that see images image_shape (JSON array: height,
// width and channels of one frame) and encoder (troupe.proto.ImageEncoder as JSON).
struct PolicyMetadata {
  std::string run;
  uint64_t version = 0;          // PolicyVersion::Packed()
  int64_t env_steps = 0;         // of the run, when it was published
  int64_t updates = 0;           // gradient steps behind it
  bool warmup = false;           // actors explore uniformly at random within the bounds
  bool final_one = false;        // the run is over: actors flush and end
  int64_t observation_size = 0;  // of the vector; may be 0 where there are images
  int64_t action_size = 0;
  Distribution distribution = Distribution::kSquashedGaussian;
  std::vector<double> action_low, action_high;  // [action_size], finite, native units; Gaussians
  std::vector<int64_t> num_choices;             // [action_size]; categorical
  proto::Mlp network;                           // hidden sizes written out
  proto::Recurrence recurrence;                 // kind and units, written out if it has a memory
  std::vector<int64_t> image_shape;             // [height, width, channels]; empty: no images
  proto::ImageEncoder encoder;                  // of images: layers, features, frame_stack
  double log_std_min = 0, log_std_max = 0;      // kSquashedGaussian
  bool squash = false;                          // kGaussian
  double observation_clip = 0;                  // of normalized observations; 0: none
};

// Where Act writes, each [n, action_size] or [n].
struct ActionSpans {
  absl::Span<float> env;       // for the environment: native units within the bounds, or choices
  absl::Span<float> row;       // as drawn: kGaussian's may lie outside; the others' are `env`
  absl::Span<float> log_prob;  // of `row`; 0 in warm-up
};

// What a policy with a memory remembers of each environment, [n, StateSize(recurrence)]; both empty
// for one without.  An episode begins with zeros.
struct MemorySpans {
  absl::Span<const float> before;  // its observation
  absl::Span<float> after;         // for the next one; may be `before`
};

// A policy built from a snapshot alone.  Not thread-safe.
//
// Tensors of the image, all F32: actor.hidden.I.weight [in, out] and .bias [out], with layer_norm
// also actor.norm.I.weight and .bias [out]; actor.head.weight [in, head size] and .bias; for
// kGaussian actor.log_std [action_size]; optionally normalizer.mean and normalizer.std
// [observation_size]; with a memory those of RecurrentParameters, and hidden.0 sees the observation
// and then the memory's output; with images actor.encoder.conv.I.weight [out, in, size, size] and
// .bias [out], whose inputs are the channels of the oldest frame first, of values / 255, and
// actor.encoder.linear.weight [in, features] and .bias, for kSquashedGaussian also
// actor.encoder.norm.weight and .bias [features]: the features, of LayerNorm and tanh there and
// else of a ReLU, stand behind the observation.  The head gives means, for kSquashedGaussian
// followed by log standard deviations, or the logits of the choices, element by element.
class Policy final {
 public:
  // Everything is checked; INVALID_ARGUMENT names the tensor or key, what was there and what was
  // expected.
  static absl::StatusOr<std::unique_ptr<Policy>> FromSnapshot(const Snapshot& snapshot);
  // The same of an image alone, such as a checkpoint's.
  static absl::StatusOr<std::unique_ptr<Policy>> FromImage(const std::string& image);
  ~Policy();

  const PolicyMetadata& metadata() const;

  // Actions for `n` observations [n, observation_size] in one forward; of policies that see images
  // also `images` [n, frame_stack, height, width, channels], the oldest frame first, before an
  // episode's first frame that one again.  INVALID_ARGUMENT if a span
  // has the wrong size, DATA_LOSS if weights or observations are so large that an action is not a
  // number.  Sample: drawn at random.  Mode: the most likely ones, even in warm-up.
  absl::Status Sample(absl::Span<const float> observations, int64_t n, const ActionSpans& actions,
                      const MemorySpans& memory = {}, absl::Span<const uint8_t> images = {});
  absl::Status Mode(absl::Span<const float> observations, int64_t n, absl::Span<float> actions,
                    const MemorySpans& memory = {}, absl::Span<const uint8_t> images = {});
  // Restarts the noise.  A new policy starts with the seed 0.
  void Seed(uint64_t seed);

 private:
  struct Impl;
  explicit Policy(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_POLICY_H_
