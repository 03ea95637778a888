#include "learner/objectives.h"

namespace troupe {

using torch::Tensor;

Tensor SoftTarget(const Transitions& b, const Tensor& q_next, const Tensor& log_pi_next,
                  const Tensor& alpha) {
  return b.r + b.gamma * (1 - b.d) * (q_next - alpha * log_pi_next);
}

Tensor CriticObjective(const Tensor& q, const Tensor& y, const std::optional<Tensor>& weight) {
  const Tensor squares = (q - y).square();
  return (weight ? squares * *weight : squares).sum() / (2 * y.size(0));
}

Tensor ActorObjective(const Tensor& q, const Tensor& log_pi, const Tensor& alpha) {
  return (alpha * log_pi - q).mean();
}

Tensor ScoreFunctionObjective(const Tensor& log_pi, const Tensor& advantage) {
  return -(log_pi * advantage.detach()).mean();
}

Tensor TemperatureGradient(const Tensor& log_pi, double target_entropy) {
  return -(log_pi.mean() + target_entropy);
}

}  // namespace troupe
