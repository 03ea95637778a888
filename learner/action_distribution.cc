#include "learner/action_distribution.h"

#include <cmath>

namespace troupe {
namespace {

using torch::Tensor;

// log softmax of each element's logits, concatenated.
Tensor LogSoftmax(const Tensor& logits, const std::vector<int64_t>& num_choices) {
  if (num_choices.size() == 1) return logits.log_softmax(1);
  std::vector<Tensor> parts = logits.split_with_sizes(num_choices, 1);
  for (Tensor& part : parts) part = part.log_softmax(1);
  return torch::cat(parts, 1);
}

// Where each element's logits begin, [A].
Tensor Offsets(const std::vector<int64_t>& num_choices, const Tensor& like) {
  std::vector<int64_t> offsets;
  int64_t offset = 0;
  for (const int64_t n : num_choices) {
    offsets.push_back(offset);
    offset += n;
  }
  return torch::tensor(offsets, like.options());
}

}  // namespace

Tensor GaussianLogProb(const Tensor& mean, const Tensor& log_std, const Tensor& a) {
  const Tensor z = (a - mean) * (-log_std).exp();
  return (-0.5 * z.square() - log_std).sum(1) -
         0.5 * std::log(2 * M_PI) * static_cast<double>(a.size(1));
}

Tensor GaussianEntropy(const Tensor& log_std) {
  return log_std.sum(-1) + 0.5 * (1 + std::log(2 * M_PI)) * static_cast<double>(log_std.size(-1));
}

Tensor GaussianKl(const Tensor& old_mean, const Tensor& old_log_std, const Tensor& mean,
                  const Tensor& log_std) {
  const Tensor moved = (old_mean - mean).square() + (2 * old_log_std).exp();
  return (log_std - old_log_std + 0.5 * moved * (-2 * log_std).exp() - 0.5).sum(1);
}

Tensor CategoricalLogProb(const Tensor& logits, const std::vector<int64_t>& num_choices,
                          const Tensor& a) {
  return LogSoftmax(logits, num_choices).gather(1, a + Offsets(num_choices, a)).sum(1);
}

Tensor CategoricalEntropy(const Tensor& logits, const std::vector<int64_t>& num_choices) {
  const Tensor log_p = LogSoftmax(logits, num_choices);
  return -(log_p.exp() * log_p).sum(1);
}

Tensor CategoricalKl(const Tensor& old_logits, const Tensor& logits,
                     const std::vector<int64_t>& num_choices) {
  const Tensor old_log_p = LogSoftmax(old_logits, num_choices);
  return (old_log_p.exp() * (old_log_p - LogSoftmax(logits, num_choices))).sum(1);
}

}  // namespace troupe
