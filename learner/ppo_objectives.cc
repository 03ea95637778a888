#include "learner/ppo_objectives.h"

namespace troupe {

using torch::Tensor;

Tensor PolicyGradientSurrogate(const Tensor& log_pi, const Tensor& A) {
  return (log_pi * A).mean();
}

Tensor ImportanceSurrogate(const Tensor& log_pi, const Tensor& log_mu, const Tensor& A) {
  return ((log_pi - log_mu).exp() * A).mean();
}

Tensor ClippedSurrogate(const Tensor& log_pi, const Tensor& log_mu, const Tensor& A,
                        double epsilon) {
  const Tensor r = (log_pi - log_mu).exp();
  return torch::minimum(r * A, r.clamp(1 - epsilon, 1 + epsilon) * A).mean();
}

Tensor ValueObjective(const Tensor& v, const Tensor& v_old, const Tensor& target, double clip) {
  const Tensor error = (v - target).square();
  if (clip <= 0) return 0.5 * error.mean();
  const Tensor near = v_old + (v - v_old).clamp(-clip, clip);
  return 0.5 * torch::maximum(error, (near - target).square()).mean();
}

Tensor ApproximateKl(const Tensor& log_pi, const Tensor& log_mu) {
  const Tensor log_r = log_pi - log_mu;
  return (log_r.exp() - 1 - log_r).mean();
}

double AdaptKlCoefficient(double beta, double kl, double target) {
  if (kl < target / 1.5) return beta / 2;
  if (kl > target * 1.5) return beta * 2;
  return beta;
}

Tensor Standardize(const Tensor& A) {
  if (A.numel() < 2) return A;
  return (A - A.mean()) / (A.std() + 1e-8);
}

}  // namespace troupe
