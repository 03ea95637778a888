#ifndef TROUPE_LEARNER_SAC_NETWORKS_H_
#define TROUPE_LEARNER_SAC_NETWORKS_H_

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/flat_parameters.h"
#include "common/image_encoder.h"
#include "common/mlp.h"
#include "common/recurrent.h"
#include "common/squashed_gaussian.h"
#include "learner/transitions.h"
#include "proto/config.pb.h"

namespace troupe {

// What SAC's networks see and do.
struct SacSizes {
  int64_t observation = 0;
  int64_t action = 0;
  ImageEncoderShape encoder{};
};

// What convolutions made of transitions' images, [B, n] each; undefined: not wanted, or there are
// none.
struct ConvolvedTransitions {
  torch::Tensor now, next;
};

// Transitions as a network sees them: s and s_next, beside what it remembers of the rows before or
// the features of images.
struct SeenTransitions {
  torch::Tensor s, s_next;
};

// The squashed Gaussian policy pi of SAC.  Not thread-safe.
class GaussianActor final {
 public:
  // The batches that it sees are the share of rank `share.rank` of `share.size`, all equal.
  struct Share {
    int64_t rank = 0, size = 1;
  };
  GaussianActor(const proto::Sac& config, const SacSizes& sizes, torch::TensorOptions options,
                Share share);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }

  // Where gradients reach the parameters of a memory, or of the linear layer behind convolutions,
  // through s and s_next, unless gradient mode is off.  They do not reach the convolutions, which
  // are the critics'.
  SeenTransitions See(const Transitions& b, const ConvolvedTransitions& convolved) const;

  // a ~ pi(.|s) with its log-probability; s: [B, observation_size].  Gradients reach the parameters
  // unless gradient mode is off.  Of a batch that ranks share, the noise is drawn for all of it.
  ActionSample Sample(const torch::Tensor& s, at::Generator& generator) const;
  // log pi(tanh(u)|s) of given actions, [B]; `unsquashed`: u, [B, A].
  torch::Tensor LogProb(const torch::Tensor& s, const torch::Tensor& unsquashed,
                        at::Generator& generator) const;

 private:
  const int64_t action_size_;
  const Share share_;
  const double log_std_min_, log_std_max_;
  const MlpShape shape_;
  const RecurrentLayer memory_;
  const ImageEncoderShape encoder_;
  FlatParameters parameters_;
};

// An ensemble of E action-value functions Q_1 ... Q_E, computed as one; with actions of no
// elements, of value functions V.  They share a memory, if there is one, which begins each window
// empty, and an encoder of images.  Not thread-safe.
class CriticEnsemble final {
 public:
  CriticEnsemble(const proto::Sac& config, const SacSizes& sizes, torch::TensorOptions options);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }

  // What the convolutions make of stacks of images, [B, n]; undefined if `images` is.  Gradients
  // reach their parameters unless gradient mode is off.
  torch::Tensor Convolve(const torch::Tensor& images) const;

  // With gradients of the memory's or the linear layer's parameters and of `convolved`, and without
  // the first.
  SeenTransitions See(const Transitions& b, const ConvolvedTransitions& convolved) const {
    return See(parameters_.trainable(), b, convolved);
  }
  SeenTransitions SeeFrozen(const Transitions& b, const ConvolvedTransitions& convolved) const {
    return See(parameters_.frozen(), b, convolved);
  }

  // All values, [E, B].  The generator is for dropout.
  torch::Tensor Values(const torch::Tensor& s, const torch::Tensor& a,
                       at::Generator& generator) const {
    return Forward(parameters_.trainable(), s, a, generator);
  }
  // The same without gradients of the parameters; those of `a` remain.
  torch::Tensor FrozenValues(const torch::Tensor& s, const torch::Tensor& a,
                             at::Generator& generator) const {
    return Forward(parameters_.frozen(), s, a, generator);
  }

 private:
  SeenTransitions See(const std::vector<torch::Tensor>& parameters, const Transitions& b,
                      const ConvolvedTransitions& convolved) const;
  torch::Tensor Forward(const std::vector<torch::Tensor>& parameters, const torch::Tensor& s,
                        const torch::Tensor& a, at::Generator& generator) const;

  const MlpShape shape_;
  const RecurrentLayer memory_;
  const ImageEncoderShape encoder_;
  FlatParameters parameters_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_SAC_NETWORKS_H_
