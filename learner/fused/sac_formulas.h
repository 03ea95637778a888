#ifndef TROUPE_LEARNER_FUSED_SAC_FORMULAS_H_
#define TROUPE_LEARNER_FUSED_SAC_FORMULAS_H_

#include <cmath>
#include <cstdint>

#include "learner/fused/philox.h"

namespace troupe {

// The element-wise formulas of Soft Actor-Critic (Haarnoja et al., arXiv 1812.05905) and their
// derivatives by hand, for CPU and GPU alike.  Tested against the reference's autograd.

enum class HiddenUnit : int { kRelu, kTanh, kElu };

TROUPE_HOST_DEVICE inline float Activate(HiddenUnit unit, float x) {
  if (unit == HiddenUnit::kRelu) return x > 0 ? x : 0;
  if (unit == HiddenUnit::kTanh) return tanhf(x);
  return x > 0 ? x : expm1f(x);
}

// The derivative of Activate where its value is `h`.
TROUPE_HOST_DEVICE inline float ActivationSlope(HiddenUnit unit, float h) {
  if (unit == HiddenUnit::kRelu) return h > 0 ? 1 : 0;
  if (unit == HiddenUnit::kTanh) return 1 - h * h;
  return h > 0 ? 1 : h + 1;
}

// One element of an action a = tanh(u), u = mean + sigma * noise.
struct SquashedElement {
  float action;
  float spread;    // sigma * noise = du / d(log sigma)
  float is_free;   // 1 where log sigma is within its bounds, 0 where it is clamped
  float log_prob;  // this element's part of log pi(a|s)
};

// `log_std`: as the network gives it.  log |da/du| = 2 (log 2 - u - softplus(-2 u)), which is exact
// where tanh saturates.
TROUPE_HOST_DEVICE inline SquashedElement SquashElement(float mean, float log_std, float noise,
                                                        float log_std_min, float log_std_max) {
  constexpr float kConstant = 0.918938533f + 1.386294361f;  // log(2 pi) / 2 + 2 log 2
  const float clamped = fminf(fmaxf(log_std, log_std_min), log_std_max);
  SquashedElement element;
  element.spread = expf(clamped) * noise;
  element.is_free = log_std >= log_std_min && log_std <= log_std_max ? 1.0f : 0.0f;
  const float u = mean + element.spread;
  const float softplus = fmaxf(-2 * u, 0.0f) + log1pf(expf(-2 * fabsf(u)));
  element.action = tanhf(u);
  element.log_prob = 2 * (u + softplus) - clamped - 0.5f * noise * noise - kConstant;
  return element;
}

// Gradients of an objective in the mean and log sigma, given those in the action and in log pi.
struct HeadGradient {
  float mean, log_std;
};
TROUPE_HOST_DEVICE inline HeadGradient SquashGradient(float action, float spread, float is_free,
                                                      float action_gradient,
                                                      float log_prob_gradient) {
  // d(log pi)/du = 2 tanh(u) = 2 a.
  const float u_gradient = action_gradient * (1 - action * action) + log_prob_gradient * 2 * action;
  return {u_gradient, is_free * (u_gradient * spread - log_prob_gradient)};
}

// y = r + gamma (1 - d) (Q'(s', a') - alpha log pi(a'|s')).  `discount`: gamma^k (1 - d).
TROUPE_HOST_DEVICE inline float SoftTargetOf(float reward, float discount, float q_next,
                                             float alpha, float log_pi_next) {
  return reward + discount * (q_next - alpha * log_pi_next);
}

// The part of dJ_pi/dQ_i that critic i of two gets, J_pi having -Q: 1 for the smaller of both, and
// half for each where they are equal or where the mean is taken.
TROUPE_HOST_DEVICE inline float ShareOfCritic(float q, float other, bool mean_of_both) {
  if (mean_of_both || q == other) return 0.5f;
  return q < other ? 1.0f : 0.0f;
}

// The numbers of Adam's step number `step`, which is 1 at first (Kingma and Ba, arXiv 1412.6980).
struct AdamSizes {
  float rate;          // learning rate / the first moment's bias correction
  float inverse_root;  // 1 / sqrt of the second moment's
};
inline constexpr float kAdamBeta1 = 0.9f, kAdamBeta2 = 0.999f, kAdamEpsilon = 1e-8f;

TROUPE_HOST_DEVICE inline AdamSizes AdamSizesOf(float learning_rate, int64_t step) {
  constexpr float kLogBeta1 = -0.105360515657826f, kLogBeta2 = -0.00100050033358353f;
  const float t = static_cast<float>(step);
  return {learning_rate / -expm1f(kLogBeta1 * t), 1 / sqrtf(-expm1f(kLogBeta2 * t))};
}

// The new value of a parameter; its moments become the new ones.
TROUPE_HOST_DEVICE inline float AdamStep(const AdamSizes& sizes, float gradient, float value,
                                         float& m, float& v, float epsilon = kAdamEpsilon) {
  m = kAdamBeta1 * m + (1 - kAdamBeta1) * gradient;
  v = kAdamBeta2 * v + (1 - kAdamBeta2) * gradient * gradient;
  return value - sizes.rate * m / (sqrtf(v) * sizes.inverse_root + epsilon);
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_SAC_FORMULAS_H_
