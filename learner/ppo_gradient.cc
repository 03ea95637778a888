#include "learner/ppo_gradient.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace troupe {
namespace {

using torch::Tensor;

// Scale and shift that standardize advantages; 1 and 0 if that is not wanted.
struct Standardizer {
  double mean = 0;
  double inverse_std = 1;
};

Standardizer Standardize(const proto::Ppo& config, const float* advantage, int64_t n) {
  if (!config.normalize_advantages() || n < 2) return {};
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += advantage[i];
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (advantage[i] - mean) * (advantage[i] - mean);
  return {mean, 1 / (std::sqrt(squares / static_cast<double>(n - 1)) + 1e-8)};
}

// The surrogate of one step, and its derivative by log pi.
struct SurrogateOfStep {
  double value;
  double slope;
};

SurrogateOfStep SurrogateOf(const proto::Ppo& config, double log_pi, double r, double advantage) {
  if (config.surrogate() == proto::POLICY_GRADIENT) return {log_pi * advantage, advantage};
  const double unclipped = r * advantage;
  if (config.surrogate() == proto::IMPORTANCE) return {unclipped, unclipped};
  const double epsilon = config.clip_epsilon();
  const double clipped = std::clamp(r, 1 - epsilon, 1 + epsilon) * advantage;
  return unclipped <= clipped ? SurrogateOfStep{unclipped, unclipped} : SurrogateOfStep{clipped, 0};
}

// Twice the loss of one value, and its derivative.
struct ValueLossOfStep {
  double loss;
  double slope;
};

ValueLossOfStep ValueLossOf(const proto::Ppo& config, double v, double v_old, double target) {
  const double error = v - target;
  if (config.value_clip() <= 0) return {error * error, error};
  const double near =
      v_old + std::clamp(v - v_old, -config.value_clip(), config.value_clip()) - target;
  if (near * near > error * error) return {near * near, 0};
  return {error * error, error};
}

}  // namespace

bool HasClosedGradient(const proto::Ppo& config) {
  return config.surrogate() != proto::KL_PENALTY &&
         config.learning_rate_schedule() != proto::KL_ADAPTIVE;
}

GaussianPpoGradient GradientOfGaussianPpo(const proto::Ppo& config, const GaussianPpoInputs& x) {
  const int64_t n = x.mean.size(0), size = x.mean.size(1);
  const auto b = static_cast<double>(n);
  GaussianPpoGradient g;
  g.mean = torch::empty_like(x.mean);
  g.v = torch::empty_like(x.v);
  const float *mean = x.mean.data_ptr<float>(), *a = x.a.data_ptr<float>(),
              *v = x.v.data_ptr<float>(), *log_mu = x.log_mu.data_ptr<float>(),
              *advantage = x.advantage.data_ptr<float>(), *target = x.target.data_ptr<float>(),
              *v_old = x.v_old.data_ptr<float>(), *log_std = x.log_std.data_ptr<float>();
  float *g_mean = g.mean.data_ptr<float>(), *g_v = g.v.data_ptr<float>();

  std::vector<double> inverse_std(size), g_log_std(size), z(size);
  double log_scale = 0.5 * std::log(2 * M_PI) * static_cast<double>(size);
  for (int64_t j = 0; j < size; ++j) {
    inverse_std[j] = std::exp(-log_std[j]);
    log_scale += log_std[j];
  }
  g.entropy = log_scale + 0.5 * static_cast<double>(size);
  const Standardizer standard = Standardize(config, advantage, n);
  for (int64_t i = 0; i < n; ++i) {
    double squares = 0;
    for (int64_t j = 0; j < size; ++j) {
      z[j] = (a[i * size + j] - mean[i * size + j]) * inverse_std[j];
      squares += z[j] * z[j];
    }
    const double log_pi = -0.5 * squares - log_scale, log_r = log_pi - log_mu[i];
    const double r = std::exp(log_r);
    const SurrogateOfStep surrogate =
        SurrogateOf(config, log_pi, r, (advantage[i] - standard.mean) * standard.inverse_std);
    g.surrogate += surrogate.value / b;
    g.kl += (r - 1 - log_r) / b;
    g.clip_fraction += (std::abs(r - 1) > config.clip_epsilon()) / b;
    for (int64_t j = 0; j < size; ++j) {
      g_mean[i * size + j] = static_cast<float>(-surrogate.slope / b * z[j] * inverse_std[j]);
      g_log_std[j] -= surrogate.slope / b * (z[j] * z[j] - 1);
    }
    const ValueLossOfStep loss = ValueLossOf(config, v[i], v_old[i], target[i]);
    g.value_loss += 0.5 * loss.loss / b;
    g_v[i] = static_cast<float>(config.value_coefficient() * loss.slope / b);
  }
  for (double& slope : g_log_std) slope -= config.entropy_coefficient();
  g.log_std = torch::tensor(g_log_std, torch::kFloat64).to(torch::kFloat32);
  return g;
}

}  // namespace troupe
