#include "learner/ppo_networks.h"

#include "common/policy_codec.h"
#include "learner/action_distribution.h"

namespace troupe {

using torch::Tensor;

proto::Mlp PpoNetwork(proto::Mlp spec, bool has_images) {
  if (spec.hidden_sizes_size() == 0 && !has_images) {
    spec.add_hidden_sizes(64);
    spec.add_hidden_sizes(64);
  }
  if (!spec.has_activation()) spec.set_activation(proto::TANH);
  return spec;
}

PpoActor::PpoActor(const PolicyMetadata& metadata, torch::TensorOptions options)
    : discrete_(metadata.distribution == Distribution::kCategorical),
      num_choices_(metadata.num_choices),
      shape_(PolicyShape(metadata)),
      memory_(PolicyMemory(metadata)),
      encoder_(EncoderOf(metadata)),
      parameters_(PolicyParameters(metadata), options) {}

Tensor PpoActor::See(const Tensor& s, const Tensor& images) const {
  const Tensor* const first = &parameters_.trainable()[RecurrentParameters(shape_, memory_).size()];
  const Tensor convolved = Convolve(encoder_, first, images);
  const size_t convolutions = ConvolutionParameters(encoder_).size();
  return torch::cat({s, Features(encoder_, first + convolutions, convolved)}, 1);
}

Tensor PpoActor::Head(const Tensor& s) const {
  return MlpForward(shape_, parameters_.trainable(), s);
}

Tensor PpoActor::LogProb(const Tensor& head, const Tensor& a) const {
  return discrete_ ? CategoricalLogProb(head, num_choices_, a)
                   : GaussianLogProb(head, log_std(), a);
}

Tensor PpoActor::Entropy(const Tensor& head) const {
  return discrete_ ? CategoricalEntropy(head, num_choices_).mean() : GaussianEntropy(log_std());
}

Tensor PpoActor::Kl(const Tensor& old_head, const Tensor& old_log_std, const Tensor& head) const {
  return discrete_ ? CategoricalKl(old_head, head, num_choices_)
                   : GaussianKl(old_head, old_log_std, head, log_std());
}

PpoCritic::PpoCritic(const proto::Mlp& network, int64_t inputs, bool trains_inputs,
                     torch::TensorOptions options)
    : shape_{.inputs = inputs, .outputs = 1, .ensemble = 0, .spec = network, .head_gain = 1},
      trains_inputs_(trains_inputs),
      parameters_(MlpParameters(shape_), options) {}

Tensor PpoCritic::Value(const Tensor& s) const {
  return MlpForward(shape_, parameters_.trainable(), trains_inputs_ ? s : s.detach()).squeeze(1);
}

}  // namespace troupe
