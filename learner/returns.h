#ifndef TROUPE_LEARNER_RETURNS_H_
#define TROUPE_LEARNER_RETURNS_H_

#include <torch/torch.h>

#include <cstdint>

#include "learner/unrolls.h"

namespace troupe {

// What a value function is fitted to, and by how much an action was better than expected, [B, T]
// each, float32 on the CPU; both are 0 where there is no transition.
struct Targets {
  torch::Tensor value;
  torch::Tensor advantage;
};

// All of them take rewards `r`, [B, T], which may be scaled, and values `v` of all rows, [B, T +
// 1], and accumulate in float64.  With d_t = 1 where the transition terminated, delta_t = r_t +
// gamma (1 - d_t) V(s_{t+1}) - V(s_t); where an episode was truncated or the unroll ends, the value
// of the last observation stands for all that would have followed.

// Generalized advantage estimation (Schulman et al., arXiv 1506.02438, equation 16):
// A_t = delta_t + gamma lambda A_{t+1}; the value target is A_t + V(s_t), the lambda-return.
// lambda = 1 is Monte Carlo, lambda = 0 one step.
Targets Gae(const Unrolls& b, const torch::Tensor& r, const torch::Tensor& v, double gamma,
            double lambda);

// r_t + gamma r_{t+1} + ... + gamma^k V(s_{t+k}) with k = n, or less where the data end first.
Targets NStep(const Unrolls& b, const torch::Tensor& r, const torch::Tensor& v, double gamma,
              int64_t n);

// V-trace (Espeholt et al., arXiv 1802.01561, equation 1 and section 4.2) with `log_rho`, [B, T] =
// log(pi / mu): rho_t = min(rho_bar, pi / mu), c_t = min(c_bar, pi / mu),
//   v_t = V(s_t) + rho_t delta_t + gamma c_t (v_{t+1} - V(s_{t+1})),
//   advantage_t = r_t + gamma (1 - d_t) v_{t+1} - V(s_t), which a policy gradient still weighs by
// the ratio.
struct VTraceBounds {
  double rho_bar = 1;
  double c_bar = 1;
};
Targets VTrace(const Unrolls& b, const torch::Tensor& r, const torch::Tensor& v,
               const torch::Tensor& log_rho, double gamma, const VTraceBounds& bounds);

// Discounted sums of past rewards, R_t = gamma R_{t-1} + r_t from 0 at the start of each unroll and
// episode, [B, T]; 0 where there is no transition.  Their standard deviation scales rewards.
torch::Tensor PastReturns(const Unrolls& b, double gamma);

}  // namespace troupe

#endif  // TROUPE_LEARNER_RETURNS_H_
