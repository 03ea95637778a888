#include "common/squashed_gaussian.h"

#include <cmath>

namespace troupe {
namespace {

// log N(u; mu, sigma) - log |da/du| with 1 - tanh(u)^2 = (2 / (e^u + e^-u))^2, so that
// log |da/du| = 2 (log 2 - u - softplus(-2 u)), which is exact where tanh saturates.
// `noise`: (u - mu) / sigma.
torch::Tensor LogProb(const torch::Tensor& u, const torch::Tensor& log_std,
                      const torch::Tensor& noise) {
  const double constant =
      static_cast<double>(u.size(1)) * (0.5 * std::log(2 * M_PI) + 2 * std::log(2.0));
  const torch::Tensor terms = 2 * (u + torch::softplus(-2 * u)) - log_std - 0.5 * noise.square();
  return terms.sum(1) - constant;
}

}  // namespace

ActionSample SquashedGaussian(const torch::Tensor& head, const torch::Tensor& noise,
                              double log_std_min, double log_std_max) {
  const int64_t size = noise.size(1);
  const torch::Tensor log_std = head.narrow(1, size, size).clamp(log_std_min, log_std_max);
  const torch::Tensor u = torch::addcmul(head.narrow(1, 0, size), log_std.exp(), noise);
  return {u.tanh(), LogProb(u, log_std, noise), u};
}

torch::Tensor SquashedGaussianLogProb(const torch::Tensor& head, const torch::Tensor& unsquashed,
                                      double log_std_min, double log_std_max) {
  const int64_t size = unsquashed.size(1);
  const torch::Tensor log_std = head.narrow(1, size, size).clamp(log_std_min, log_std_max);
  const torch::Tensor noise = (unsquashed - head.narrow(1, 0, size)) * (-log_std).exp();
  return LogProb(unsquashed, log_std, noise);
}

}  // namespace troupe
