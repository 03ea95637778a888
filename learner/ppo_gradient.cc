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

void BeginPpoLoss(const proto::Ppo& config, const float* log_std, int64_t num_log_stds,
                  double share, PpoLoss& loss) {
  loss.surrogate = loss.value_loss = loss.kl = loss.clip_fraction = 0;
  loss.entropy = 0.5 * (1 + std::log(2 * M_PI)) * static_cast<double>(num_log_stds);
  loss.inverse_std.resize(num_log_stds);
  loss.log_std.assign(num_log_stds, -share * config.entropy_coefficient());
  for (int64_t j = 0; j < num_log_stds; ++j) {
    loss.inverse_std[j] = std::exp(-log_std[j]);
    loss.entropy += log_std[j];
  }
}

namespace {

// Adds row `i`, whose action has this log pi; returns the loss's derivative by log pi.
double AddSurrogate(const proto::Ppo& config, const PpoPolicyRows& x, int64_t i, double log_pi,
                    const AdvantageScale& scale, double minibatch_size, PpoLoss& loss) {
  const double log_r = log_pi - x.log_mu[i], r = std::exp(log_r);
  const SurrogateOfStep surrogate =
      SurrogateOf(SurrogateKind(config), config.clip_epsilon(), log_pi, r,
                  (x.advantage[i] - scale.mean) * scale.inverse_std);
  loss.surrogate += surrogate.value / minibatch_size;
  loss.kl += (r - 1 - log_r) / minibatch_size;
  loss.clip_fraction += (std::abs(r - 1) > config.clip_epsilon()) / minibatch_size;
  return -surrogate.slope / minibatch_size;
}

}  // namespace

void AddGaussianRows(const proto::Ppo& config, const PpoPolicyRows& x, const AdvantageScale& scale,
                     int64_t minibatch_size, float* head_gradient, PpoLoss& loss) {
  const int64_t size = x.action_size;
  const auto b = static_cast<double>(minibatch_size);
  const double log_scale = loss.entropy - 0.5 * static_cast<double>(size);
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* const mean = x.head + i * x.head_stride;
    const auto z = [&](int64_t j) { return (x.a[i * size + j] - mean[j]) * loss.inverse_std[j]; };
    double squares = 0;
    for (int64_t j = 0; j < size; ++j) squares += z(j) * z(j);
    const double slope = AddSurrogate(config, x, i, -0.5 * squares - log_scale, scale, b, loss);
    for (int64_t j = 0; j < size; ++j) {
      head_gradient[i * x.head_stride + j] = static_cast<float>(slope * z(j) * loss.inverse_std[j]);
      loss.log_std[j] += slope * (z(j) * z(j) - 1);
    }
  }
}

void AddChoiceRows(const proto::Ppo& config, absl::Span<const int64_t> num_choices,
                   const PpoPolicyRows& x, const AdvantageScale& scale, int64_t minibatch_size,
                   float* head_gradient, PpoLoss& loss) {
  const auto b = static_cast<double>(minibatch_size);
  // Calls use(logits' place in a row, how many, their summary, the choice) for each element.
  const auto for_each_element = [&](int64_t i, auto use) {
    int64_t at = i * x.head_stride;
    for (int64_t element = 0; element < x.action_size; ++element) {
      const int64_t n = num_choices[element];
      use(at, n, SummaryOf(x.head + at, n), std::lround(x.a[i * x.action_size + element]));
      at += n;
    }
  };
  for (int64_t i = 0; i < x.rows; ++i) {
    double log_pi = 0;
    for_each_element(i, [&](int64_t at, int64_t, const SummaryOfLogits& of, int64_t choice) {
      log_pi += x.head[at + choice] - of.log_sum;
      loss.entropy += of.entropy / b;
    });
    const double slope = AddSurrogate(config, x, i, log_pi, scale, b, loss);
    for_each_element(i, [&](int64_t at, int64_t n, const SummaryOfLogits& of, int64_t choice) {
      for (int64_t j = 0; j < n; ++j) {
        head_gradient[at + j] = static_cast<float>(
            SlopeByLogit(of, x.head[at + j], j == choice, slope, config.entropy_coefficient() / b));
      }
    });
  }
}

void AddValueRows(const proto::Ppo& config, const PpoValueRows& x, int64_t minibatch_size,
                  float* v_gradient, PpoLoss& loss) {
  const auto b = static_cast<double>(minibatch_size);
  for (int64_t i = 0; i < x.rows; ++i) {
    const ValueLossOfStep value = ValueLossOf(config.value_clip(), x.v[i], x.v_old[i], x.target[i]);
    loss.value_loss += 0.5 * value.loss / b;
    v_gradient[i] = static_cast<float>(config.value_coefficient() * value.slope / b);
  }
}

}  // namespace troupe
