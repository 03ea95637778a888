#ifndef TROUPE_COMMON_POLICY_CODEC_H_
#define TROUPE_COMMON_POLICY_CODEC_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/flat_parameters.h"
#include "common/image_encoder.h"
#include "common/mlp.h"
#include "common/policy.h"
#include "common/recurrent.h"

namespace troupe {

// Prefix of the policy's tensors in a snapshot, and the names of the others.
inline constexpr char kActorPrefix[] = "actor.";
inline constexpr char kNormalizerMean[] = "normalizer.mean";
inline constexpr char kNormalizerStd[] = "normalizer.std";
// The standard deviation that PPO divides rewards by, [1]; the learner's alone.
inline constexpr char kRewardStd[] = "normalizer.reward_std";

// What a policy's memory sees, or else its network: numbers of the observation and, behind it, of
// the images' features.
int64_t PolicyInputs(const PolicyMetadata& metadata);
// The network of a policy, which sees the output of its memory, if it has one, behind all that.
MlpShape PolicyShape(const PolicyMetadata& metadata);
RecurrentLayer PolicyMemory(const PolicyMetadata& metadata);
// Its parameters: those of the network, then of the memory, then of the encoder, for kGaussian
// followed by log_std.
std::vector<ParameterSpec> PolicyParameters(const PolicyMetadata& metadata);

// The statistics that travel with a policy.
struct PolicyStatistics {
  torch::Tensor observation_mean, observation_std;  // [observation_size]; undefined: none
  torch::Tensor reward_std;                         // [1]; undefined: none
};

// The image of a snapshot.  `actor` has the parameters of PolicyParameters(metadata).
absl::StatusOr<std::string> EncodePolicy(const PolicyMetadata& metadata,
                                         const FlatParameters& actor,
                                         const PolicyStatistics& statistics = {});

// Accepts hostile strings: every number is checked, INVALID_ARGUMENT names the key.
absl::StatusOr<PolicyMetadata> ParsePolicyMetadata(const Safetensors& image);

}  // namespace troupe

#endif  // TROUPE_COMMON_POLICY_CODEC_H_
