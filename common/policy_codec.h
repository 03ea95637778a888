#ifndef TROUPE_COMMON_POLICY_CODEC_H_
#define TROUPE_COMMON_POLICY_CODEC_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/flat_parameters.h"
#include "common/mlp.h"
#include "common/policy.h"

namespace troupe {

// Prefix of the policy's tensors in a snapshot.
inline constexpr char kActorPrefix[] = "actor.";

// The network of a squashed Gaussian policy.
MlpShape PolicyShape(const PolicyMetadata& metadata);

// The image of a snapshot.  `actor` has the parameters of MlpParameters(PolicyShape(metadata)).
absl::StatusOr<std::string> EncodePolicy(const PolicyMetadata& metadata,
                                         const FlatParameters& actor);

// Accepts hostile strings: every number is checked, INVALID_ARGUMENT names the key.
absl::StatusOr<PolicyMetadata> ParsePolicyMetadata(const Safetensors& image);

}  // namespace troupe

#endif  // TROUPE_COMMON_POLICY_CODEC_H_
