#include "learner/prioritized.h"

#include <algorithm>

namespace troupe {

constexpr float kLeastPriority = 1e-6F;

std::vector<float> Prioritized::Weights(const WindowBatch& batch, int64_t env_steps) const {
  return Weights(batch.buffer->probabilities, env_steps);
}

std::vector<float> Prioritized::Weights(absl::Span<const float> probabilities,
                                        int64_t env_steps) const {
  const double progress = std::min(
      static_cast<double>(env_steps) / static_cast<double>(std::max<int64_t>(total_env_steps_, 1)),
      1.0);
  return ImportanceWeights(probabilities, first_exponent_ + (1 - first_exponent_) * progress);
}

std::vector<float> Prioritized::Priorities(absl::Span<const float> absolute_errors) {
  std::vector<float> priorities(absolute_errors.begin(), absolute_errors.end());
  for (float& priority : priorities) priority += kLeastPriority;
  return priorities;
}

}  // namespace troupe
