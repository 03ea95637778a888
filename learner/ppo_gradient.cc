#include "learner/ppo_gradient.h"

#include <cmath>
#include <vector>

namespace troupe {

PpoSurrogate SurrogateKind(const proto::Ppo& config) {
  switch (config.surrogate()) {
    case proto::POLICY_GRADIENT:
      return PpoSurrogate::kPolicyGradient;
    case proto::IMPORTANCE:
      return PpoSurrogate::kImportance;
    default:
      return PpoSurrogate::kClip;
  }
}

bool HasClosedGradient(const proto::Ppo& config) {
  return config.surrogate() != proto::KL_PENALTY &&
         config.learning_rate_schedule() != proto::KL_ADAPTIVE;
}

AdvantageScale ScaleOf(const proto::Ppo& config, const float* advantage, int64_t n) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += advantage[i];
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (advantage[i] - mean) * (advantage[i] - mean);
  return ScaleOf(config, n, sum, squares);
}

AdvantageScale ScaleOf(const proto::Ppo& config, int64_t n, double sum, double squares) {
  if (!config.normalize_advantages() || n < 2) return {};
  return {sum / static_cast<double>(n),
          1 / (std::sqrt(squares / static_cast<double>(n - 1)) + 1e-8)};
}

void BeginPpoLoss(const proto::Ppo& config, const float* log_std, int64_t action_size, double share,
                  PpoLoss& loss) {
  loss.surrogate = loss.value_loss = loss.kl = loss.clip_fraction = 0;
  loss.entropy = 0.5 * (1 + std::log(2 * M_PI)) * static_cast<double>(action_size);
  loss.inverse_std.resize(action_size);
  loss.log_std.assign(action_size, -share * config.entropy_coefficient());
  for (int64_t j = 0; j < action_size; ++j) {
    loss.inverse_std[j] = std::exp(-log_std[j]);
    loss.entropy += log_std[j];
  }
}

void AddPpoRows(const proto::Ppo& config, const GaussianPpoRows& x, const AdvantageScale& scale,
                int64_t minibatch_size, const GaussianPpoRowGradients& gradients, PpoLoss& loss) {
  const int64_t size = x.action_size;
  const auto b = static_cast<double>(minibatch_size);
  const double log_scale = loss.entropy - 0.5 * static_cast<double>(size);
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* const mean = x.mean + i * x.mean_stride;
    float* const mean_gradient = gradients.mean + i * x.mean_stride;
    const auto z = [&](int64_t j) { return (x.a[i * size + j] - mean[j]) * loss.inverse_std[j]; };
    double squares = 0;
    for (int64_t j = 0; j < size; ++j) squares += z(j) * z(j);
    const double log_pi = -0.5 * squares - log_scale, log_r = log_pi - x.log_mu[i];
    const double r = std::exp(log_r);
    const SurrogateOfStep surrogate =
        SurrogateOf(SurrogateKind(config), config.clip_epsilon(), log_pi, r,
                    (x.advantage[i] - scale.mean) * scale.inverse_std);
    loss.surrogate += surrogate.value / b;
    loss.kl += (r - 1 - log_r) / b;
    loss.clip_fraction += (std::abs(r - 1) > config.clip_epsilon()) / b;
    for (int64_t j = 0; j < size; ++j) {
      mean_gradient[j] = static_cast<float>(-surrogate.slope / b * z(j) * loss.inverse_std[j]);
      loss.log_std[j] -= surrogate.slope / b * (z(j) * z(j) - 1);
    }
    const ValueLossOfStep value = ValueLossOf(config.value_clip(), x.v[i], x.v_old[i], x.target[i]);
    loss.value_loss += 0.5 * value.loss / b;
    gradients.v[i] = static_cast<float>(config.value_coefficient() * value.slope / b);
  }
}

}  // namespace troupe
