#ifndef TROUPE_LEARNER_OBJECTIVES_H_
#define TROUPE_LEARNER_OBJECTIVES_H_

#include <torch/torch.h>

#include <optional>

#include "learner/transitions.h"

namespace troupe {

// The objectives of Soft Actor-Critic (Haarnoja et al., arXiv 1812.05905) as pure functions.
// `alpha` is a scalar; B is the batch, E the ensemble of critics.

// y = r + gamma (1 - d) (Q'(s', a') - alpha log pi(a'|s')), [B].  `q_next` and `log_pi_next`: [B].
torch::Tensor SoftTarget(const Transitions& b, const torch::Tensor& q_next,
                         const torch::Tensor& log_pi_next, const torch::Tensor& alpha);

// J_Q = sum over the critics of E[w (Q(s, a) - y)^2 / 2].  `q`: [E, B]; `weight`: [B], none is 1.
torch::Tensor CriticObjective(const torch::Tensor& q, const torch::Tensor& y,
                              const std::optional<torch::Tensor>& weight = std::nullopt);

// J_pi = E[alpha log pi(a|s) - Q(s, a)].
torch::Tensor ActorObjective(const torch::Tensor& q, const torch::Tensor& log_pi,
                             const torch::Tensor& alpha);

// The same objective's gradient without the critic's: -E[log pi(a|s) advantage], whose gradient is
// that of J_pi if a ~ pi and advantage = Q(s, a) - alpha log pi(a|s) - b(s), which is a constant
// here (Williams 1992).  `log_pi` and `advantage`: [B].
torch::Tensor ScoreFunctionObjective(const torch::Tensor& log_pi, const torch::Tensor& advantage);

// dJ/d(log alpha) of J = E[-log alpha (log pi(a|s) + target entropy)], the form that the authors'
// code descends (softlearning); its sign and zero are those of the paper's equation 18.
torch::Tensor TemperatureGradient(const torch::Tensor& log_pi, double target_entropy);

}  // namespace troupe

#endif  // TROUPE_LEARNER_OBJECTIVES_H_
