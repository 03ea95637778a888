#ifndef TROUPE_LEARNER_ACTION_DISTRIBUTION_H_
#define TROUPE_LEARNER_ACTION_DISTRIBUTION_H_

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace troupe {

// Distributions over actions as pure functions, [B] each and differentiable in their parameters.

// A Gaussian with independent elements: mean [B, A], log_std [A] or [B, A], action a [B, A].
torch::Tensor GaussianLogProb(const torch::Tensor& mean, const torch::Tensor& log_std,
                              const torch::Tensor& a);
// In nats, a scalar for log_std [A].
torch::Tensor GaussianEntropy(const torch::Tensor& log_std);
// KL(old || now).
torch::Tensor GaussianKl(const torch::Tensor& old_mean, const torch::Tensor& old_log_std,
                         const torch::Tensor& mean, const torch::Tensor& log_std);

// For each of A elements one of num_choices[i] choices, independently: logits [B, sum of choices],
// element by element; a [B, A] int64.
torch::Tensor CategoricalLogProb(const torch::Tensor& logits,
                                 const std::vector<int64_t>& num_choices, const torch::Tensor& a);
torch::Tensor CategoricalEntropy(const torch::Tensor& logits,
                                 const std::vector<int64_t>& num_choices);
torch::Tensor CategoricalKl(const torch::Tensor& old_logits, const torch::Tensor& logits,
                            const std::vector<int64_t>& num_choices);

}  // namespace troupe

#endif  // TROUPE_LEARNER_ACTION_DISTRIBUTION_H_
