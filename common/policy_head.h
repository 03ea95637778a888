#ifndef TROUPE_COMMON_POLICY_HEAD_H_
#define TROUPE_COMMON_POLICY_HEAD_H_

#include <cstdint>
#include <random>

#include "absl/types/span.h"
#include "common/policy.h"

namespace troupe {

// The draw of one action, [action_size] each; `log_prob` of `row`.
struct DrawnAction {
  absl::Span<float> env;
  absl::Span<float> row;
  float* log_prob;
};

// Numbers in the head of the policy's network.
int64_t HeadSize(const PolicyMetadata& metadata);

// From (-1, 1) to element `i`'s bounds in native units, and beyond them for what is beyond.
double ToNativeUnits(const PolicyMetadata& metadata, double action, int64_t i);

// Draws an action from what the network says of one observation: `head`, [HeadSize], and for
// kGaussian `log_std`, [action_size].  False if something there is not a number.
bool DrawAction(const PolicyMetadata& metadata, const float* head, const float* log_std,
                std::mt19937_64& random, const DrawnAction& out);
// The most likely action.
bool ModeAction(const PolicyMetadata& metadata, const float* head, absl::Span<float> env);
// Uniformly random within the bounds.
void DrawUniform(const PolicyMetadata& metadata, std::mt19937_64& random, absl::Span<float> env);

}  // namespace troupe

#endif  // TROUPE_COMMON_POLICY_HEAD_H_
