#ifndef TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_
#define TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_

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

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_FORMULAS_H_
