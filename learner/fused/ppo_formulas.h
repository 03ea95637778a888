#ifndef TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_
#define TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_

#include <cmath>
#include <cstdint>

#include "learner/fused/philox.h"

namespace troupe {

// The formulas of one step of Proximal Policy Optimization (Schulman et al., arXiv 1707.06347) and
// their derivatives by hand, for CPU and GPU alike.  Tested against the objectives' autograd.

enum class PpoSurrogate : int32_t { kPolicyGradient, kImportance, kClip };

TROUPE_HOST_DEVICE inline double ClampTo(double x, double low, double high) {
  if (x < low) return low;
  return x > high ? high : x;
}

// What standardizes advantages: (A - mean) * inverse_std.
struct AdvantageScale {
  double mean = 0;
  double inverse_std = 1;
};

// What is to be known of a minibatch as a whole, the parts of other ranks included.
struct WholeMinibatch {
  int64_t rows = 0;
  AdvantageScale scale;
};

// What is to be maximized of one step, and its derivative by log pi.
struct SurrogateOfStep {
  double value;
  double slope;
};

TROUPE_HOST_DEVICE inline SurrogateOfStep SurrogateOf(PpoSurrogate kind, double clip_epsilon,
                                                      double log_pi, double r, double advantage) {
  if (kind == PpoSurrogate::kPolicyGradient) return {log_pi * advantage, advantage};
  const double unclipped = r * advantage;
  if (kind == PpoSurrogate::kImportance) return {unclipped, unclipped};
  const double clipped = ClampTo(r, 1 - clip_epsilon, 1 + clip_epsilon) * advantage;
  if (unclipped <= clipped) return {unclipped, unclipped};
  return {clipped, 0};
}

// Twice the loss of one value, and its derivative.
struct ValueLossOfStep {
  double loss;
  double slope;
};

TROUPE_HOST_DEVICE inline ValueLossOfStep ValueLossOf(double value_clip, double v, double v_old,
                                                      double target) {
  const double error = v - target;
  if (value_clip <= 0) return {error * error, error};
  const double near = v_old + ClampTo(v - v_old, -value_clip, value_clip) - target;
  if (near * near > error * error) return {near * near, 0};
  return {error * error, error};
}

// What is to be known of the logits l of a number of choices: log sum exp(l), and the entropy.
struct SummaryOfLogits {
  double log_sum;
  double entropy;
};

TROUPE_HOST_DEVICE inline SummaryOfLogits SummaryOf(const float* logits, int64_t n) {
  double most = logits[0], total = 0, weighed = 0;
  for (int64_t j = 1; j < n; ++j) most = logits[j] > most ? logits[j] : most;
  for (int64_t j = 0; j < n; ++j) {
    const double above = logits[j] - most, weight = exp(above);
    total += weight;
    weighed += weight * above;
  }
  return {most + log(total), log(total) - weighed / total};
}

// The derivative by logit `j` of  slope log p(choice) - entropy_coefficient H.
TROUPE_HOST_DEVICE inline double SlopeByLogit(const SummaryOfLogits& of, double logit,
                                              bool is_choice, double slope,
                                              double entropy_coefficient) {
  const double log_p = logit - of.log_sum, p = exp(log_p);
  return slope * ((is_choice ? 1 : 0) - p) + entropy_coefficient * p * (log_p + of.entropy);
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_
