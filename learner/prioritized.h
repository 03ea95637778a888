#ifndef TROUPE_LEARNER_PRIORITIZED_H_
#define TROUPE_LEARNER_PRIORITIZED_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/window_batch.h"

namespace troupe {

// What a learner makes of batches that are drawn by priority (Prioritized Experience Replay, arXiv
// 1511.05952).  Immutable, so thread-safe.
class Prioritized final {
 public:
  // Losses are weighted with exponent beta = `first_exponent` at the start of the run, which rises
  // linearly to 1 at `total_env_steps` (section 3.4).
  // `priority_exponent`: alpha, where it is the learner that draws.
  Prioritized(double first_exponent, int64_t total_env_steps, double priority_exponent = 0.6)
      : first_exponent_(first_exponent),
        total_env_steps_(total_env_steps),
        priority_exponent_(priority_exponent) {}

  double priority_exponent() const { return priority_exponent_; }

  // Of each window of a batch, after `env_steps` of the run; the largest is 1.
  std::vector<float> Weights(const WindowBatch& batch, int64_t env_steps) const;
  // The same of windows that were drawn with these probabilities.
  std::vector<float> Weights(absl::Span<const float> probabilities, int64_t env_steps) const;

  // New priorities of windows with these TD errors, |delta| + epsilon (section 3.3): none is 0.
  static std::vector<float> Priorities(absl::Span<const float> absolute_errors);

 private:
  const double first_exponent_;
  const int64_t total_env_steps_;
  const double priority_exponent_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PRIORITIZED_H_
