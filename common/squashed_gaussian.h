#ifndef TROUPE_COMMON_SQUASHED_GAUSSIAN_H_
#define TROUPE_COMMON_SQUASHED_GAUSSIAN_H_

#include <torch/torch.h>

namespace troupe {

// Actions in (-1, 1) and the logarithm of their density there.
struct ActionSample {
  torch::Tensor action;        // [B, A]
  torch::Tensor log_prob;      // [B]
  torch::Tensor unsquashed{};  // [B, A], atanh(action)
};

// a = tanh(mu + sigma * noise), differentiable in `head`: [B, 2 A], means first, then log standard
// deviations, which are clamped to the bounds.  `noise`: standard normal, [B, A].
ActionSample SquashedGaussian(const torch::Tensor& head, const torch::Tensor& noise,
                              double log_std_min, double log_std_max);

// log pi(tanh(u)), [B], differentiable in `head`.  `unsquashed`: u, [B, A].
torch::Tensor SquashedGaussianLogProb(const torch::Tensor& head, const torch::Tensor& unsquashed,
                                      double log_std_min, double log_std_max);

}  // namespace troupe

#endif  // TROUPE_COMMON_SQUASHED_GAUSSIAN_H_
