#include "learner/sac_networks.h"

namespace troupe {
namespace {

SeenTransitions Seen(const RecurrentLayer& memory, const std::vector<torch::Tensor>& parameters,
                     const Transitions& b, const RowSequences& rows) {
  const torch::Tensor all = SeeSequences(memory, parameters, rows).flatten(0, 1);
  return {all.index_select(0, b.rows->now), all.index_select(0, b.rows->next)};
}

}  // namespace

GaussianActor::GaussianActor(const proto::Sac& config, int64_t observation_size,
                             int64_t action_size, torch::TensorOptions options, Share share)
    : action_size_(action_size),
      share_(share),
      log_std_min_(config.log_std_min()),
      log_std_max_(config.log_std_max()),
      shape_{.inputs = observation_size + OutputSize(config.recurrence()),
             .outputs = 2 * action_size,
             .ensemble = 0,
             .spec = WithHiddenSizes(config.actor())},
      memory_(LayerBefore(shape_, config.recurrence(), observation_size)),
      parameters_(RecurrentParameters(shape_, memory_), options) {}

SeenTransitions GaussianActor::See(const Transitions& b) const {
  if (!b.rows) return {b.s, b.s_next};
  return Seen(memory_, parameters_.trainable(), b, b.rows->in_order);
}

ActionSample GaussianActor::Sample(const torch::Tensor& s, at::Generator& generator) const {
  const torch::Tensor head = MlpForward(shape_, parameters_.trainable(), s, generator);
  const int64_t rows = s.size(0);
  const torch::Tensor noise =
      torch::empty({share_.size * rows, action_size_}, s.options()).normal_(0, 1, generator);
  return SquashedGaussian(head, noise.narrow(0, share_.rank * rows, rows), log_std_min_,
                          log_std_max_);
}

torch::Tensor GaussianActor::LogProb(const torch::Tensor& s, const torch::Tensor& unsquashed,
                                     at::Generator& generator) const {
  const torch::Tensor head = MlpForward(shape_, parameters_.trainable(), s, generator);
  return SquashedGaussianLogProb(head, unsquashed, log_std_min_, log_std_max_);
}

CriticEnsemble::CriticEnsemble(const proto::Sac& config, int64_t observation_size,
                               int64_t action_size, torch::TensorOptions options)
    : shape_{.inputs = observation_size + OutputSize(config.recurrence()) + action_size,
             .outputs = 1,
             .ensemble = config.num_critics(),
             .spec = WithHiddenSizes(config.critic())},
      memory_(LayerBefore(shape_, config.recurrence(), observation_size)),
      parameters_(RecurrentParameters(shape_, memory_), options) {}

SeenTransitions CriticEnsemble::See(const std::vector<torch::Tensor>& parameters,
                                    const Transitions& b) const {
  if (!b.rows) return {b.s, b.s_next};
  RowSequences rows = b.rows->in_order;
  rows.stored = torch::Tensor();
  return Seen(memory_, parameters, b, rows);
}

torch::Tensor CriticEnsemble::Forward(const std::vector<torch::Tensor>& parameters,
                                      const torch::Tensor& s, const torch::Tensor& a,
                                      at::Generator& generator) const {
  const torch::Tensor x = torch::cat({s, a}, 1).expand({shape_.ensemble, -1, -1});
  return MlpForward(shape_, parameters, x, generator).squeeze(2);
}

}  // namespace troupe
