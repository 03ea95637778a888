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

// What a snapshot says of itself.  It travels in the `__metadata__` of the safetensors image, under
// the keys  format ("troupe.policy.1"), run, version, env_steps, updates, warmup ("0"/"1"),
// final ("0"/"1"), observation_size, action_size, action_low, action_high (JSON arrays), network
// (troupe.proto.Mlp as JSON), log_std_min, log_std_max.
struct PolicyMetadata {
  std::string run;
  uint64_t version = 0;    // PolicyVersion::Packed()
  int64_t env_steps = 0;   // of the run, when it was published
  int64_t updates = 0;     // gradient steps behind it
  bool warmup = false;     // actors explore uniformly at random within the bounds
  bool final_one = false;  // the run is over: actors flush and end
  int64_t observation_size = 0;
  int64_t action_size = 0;
  std::vector<double> action_low, action_high;  // [action_size], finite, native units
  proto::Mlp network;                           // hidden sizes written out
  double log_std_min = 0, log_std_max = 0;
};

// A squashed Gaussian policy built from a snapshot alone.  Not thread-safe.
//
// Tensors of the image, all F32: actor.hidden.I.weight [in, out] and .bias [out], with layer_norm
// also actor.norm.I.weight and .bias [out]; actor.head.weight [in, 2 * action_size] and .bias
// (means first, then log standard deviations); optionally normalizer.mean and normalizer.std
// [observation_size].
class Policy final {
 public:
  // Everything is checked; INVALID_ARGUMENT names the tensor or key, what was there and what was
  // expected.
  static absl::StatusOr<std::unique_ptr<Policy>> FromSnapshot(const Snapshot& snapshot);
  ~Policy();

  const PolicyMetadata& metadata() const;

  // Actions for `n` observations [n, observation_size] in one forward; `actions` is
  // [n, action_size] in native units, within the bounds.  `deterministic`: the mode of the policy
  // even in warm-up; otherwise a random action.  INVALID_ARGUMENT if a span has the wrong size,
  // DATA_LOSS if weights or observations are so large that an action is not a number.
  absl::Status Act(absl::Span<const float> observations, int64_t n, bool deterministic,
                   absl::Span<float> actions);
  // Restarts the noise.  A new policy starts with the seed 0.
  void Seed(uint64_t seed);

 private:
  struct Impl;
  explicit Policy(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_POLICY_H_
