#ifndef TROUPE_LEARNER_PPO_OBJECTIVES_H_
#define TROUPE_LEARNER_PPO_OBJECTIVES_H_

#include <torch/torch.h>

namespace troupe {

// What PPO (Schulman et al., arXiv 1707.06347) and the methods before it maximize, as pure
// functions: scalars of `log_pi`, the log-probability of the actions now, `log_mu`, the one with
// which they were drawn, and their advantage `A`, [B] each.

// E[log pi A]; its gradient is the policy gradient (Williams 1992) if pi = mu.
torch::Tensor PolicyGradientSurrogate(const torch::Tensor& log_pi, const torch::Tensor& A);

// E[r A] with r = pi / mu (PPO, equation 6, "CPI").
torch::Tensor ImportanceSurrogate(const torch::Tensor& log_pi, const torch::Tensor& log_mu,
                                  const torch::Tensor& A);

// E[min(r A, clip(r, 1 - epsilon, 1 + epsilon) A)] (PPO, equation 7).
torch::Tensor ClippedSurrogate(const torch::Tensor& log_pi, const torch::Tensor& log_mu,
                               const torch::Tensor& A, double epsilon);

// E[(V - target)^2] / 2; with clip > 0 E[max((V - target)^2, (V_old + clip(V - V_old, +-clip) -
// target)^2)] / 2 (OpenAI baselines' ppo2).
torch::Tensor ValueObjective(const torch::Tensor& v, const torch::Tensor& v_old,
                             const torch::Tensor& target, double clip);

// An estimate of KL(mu || pi) from samples of mu that is never negative: E[r - 1 - log r]
// (Schulman, "Approximating KL Divergence", 2020).
torch::Tensor ApproximateKl(const torch::Tensor& log_pi, const torch::Tensor& log_mu);

// beta after a batch whose KL was `kl` (PPO, section 4).
double AdaptKlCoefficient(double beta, double kl, double target);

// To mean 0 and standard deviation 1; of one element: unchanged.
torch::Tensor Standardize(const torch::Tensor& A);

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_OBJECTIVES_H_
