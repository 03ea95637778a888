#include "learner/sac_networks.h"

#include <utility>

namespace troupe {
namespace {

SeenTransitions Seen(const RecurrentLayer& memory, const std::vector<torch::Tensor>& parameters,
                     const Transitions& b, const RowSequences& rows) {
  const torch::Tensor all = SeeSequences(memory, parameters, rows).flatten(0, 1);
  return {all.index_select(0, b.rows->now), all.index_select(0, b.rows->next)};
}

// A vector beside an image's features, if there is one.
torch::Tensor Beside(const torch::Tensor& s, const ImageEncoderShape& encoder,
                     const torch::Tensor* parameters, const torch::Tensor& convolved) {
  if (!convolved.defined()) return s;
  return torch::cat({s, Features(encoder, parameters, convolved)}, 1);
}

std::vector<ParameterSpec> Joined(std::vector<ParameterSpec> all,
                                  const std::vector<ParameterSpec>& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

int64_t Inputs(const proto::Sac& config, const SacSizes& sizes) {
  return sizes.observation + OutputSize(config.recurrence()) + sizes.encoder.features();
}

}  // namespace

GaussianActor::GaussianActor(const proto::Sac& config, const SacSizes& sizes,
                             torch::TensorOptions options, Share share)
    : action_size_(sizes.action),
      share_(share),
      log_std_min_(config.log_std_min()),
      log_std_max_(config.log_std_max()),
      shape_{.inputs = Inputs(config, sizes),
             .outputs = 2 * sizes.action,
             .ensemble = 0,
             .spec = WithHiddenSizes(config.actor())},
      memory_(LayerBefore(shape_, config.recurrence(), sizes.observation)),
      encoder_(sizes.encoder),
      parameters_(Joined(RecurrentParameters(shape_, memory_), FeatureParameters(encoder_)),
                  options) {}

SeenTransitions GaussianActor::See(const Transitions& b,
                                   const ConvolvedTransitions& convolved) const {
  if (encoder_.has_images()) {
    const torch::Tensor* const own =
        &parameters_.trainable()[RecurrentParameters(shape_, memory_).size()];
    return {Beside(b.s, encoder_, own, convolved.now.detach()),
            Beside(b.s_next, encoder_, own, convolved.next.detach())};
  }
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

CriticEnsemble::CriticEnsemble(const proto::Sac& config, const SacSizes& sizes,
                               torch::TensorOptions options)
    : shape_{.inputs = Inputs(config, sizes) + sizes.action,
             .outputs = 1,
             .ensemble = config.num_critics(),
             .spec = WithHiddenSizes(config.critic())},
      memory_(LayerBefore(shape_, config.recurrence(), sizes.observation)),
      encoder_(sizes.encoder),
      parameters_(Joined(RecurrentParameters(shape_, memory_),
                         Joined(ConvolutionParameters(encoder_), FeatureParameters(encoder_))),
                  options) {}

torch::Tensor CriticEnsemble::Convolve(const torch::Tensor& images) const {
  if (!images.defined()) return {};
  const size_t first = RecurrentParameters(shape_, memory_).size();
  return troupe::Convolve(encoder_, &parameters_.trainable()[first], images);
}

SeenTransitions CriticEnsemble::See(const std::vector<torch::Tensor>& parameters,
                                    const Transitions& b,
                                    const ConvolvedTransitions& convolved) const {
  if (encoder_.has_images()) {
    const torch::Tensor* const own = &parameters[RecurrentParameters(shape_, memory_).size() +
                                                 ConvolutionParameters(encoder_).size()];
    return {Beside(b.s, encoder_, own, convolved.now),
            Beside(b.s_next, encoder_, own, convolved.next)};
  }
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
