#ifndef TROUPE_LEARNER_SAC_NETWORKS_H_
#define TROUPE_LEARNER_SAC_NETWORKS_H_

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/flat_parameters.h"
#include "common/mlp.h"
#include "common/recurrent.h"
#include "common/squashed_gaussian.h"
#include "learner/transitions.h"
#include "proto/config.pb.h"

namespace troupe {

// Transitions as a network sees them: s and s_next, beside what it remembers of the rows before.
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
  GaussianActor(const proto::Sac& config, int64_t observation_size, int64_t action_size,
                torch::TensorOptions options, Share share);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }

  // Where gradients reach the parameters of a memory through s and s_next, unless gradient mode is
  // off.
  SeenTransitions See(const Transitions& b) const;

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
  FlatParameters parameters_;
};

// An ensemble of E action-value functions Q_1 ... Q_E, computed as one; with actions of no
// elements, of value functions V.  They share a memory, if there is one, which begins each window
// empty.  Not thread-safe.
class CriticEnsemble final {
 public:
  CriticEnsemble(const proto::Sac& config, int64_t observation_size, int64_t action_size,
                 torch::TensorOptions options);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }

  // With gradients of the memory's parameters, and without.
  SeenTransitions See(const Transitions& b) const { return See(parameters_.trainable(), b); }
  SeenTransitions SeeFrozen(const Transitions& b) const { return See(parameters_.frozen(), b); }

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
  SeenTransitions See(const std::vector<torch::Tensor>& parameters, const Transitions& b) const;
  torch::Tensor Forward(const std::vector<torch::Tensor>& parameters, const torch::Tensor& s,
                        const torch::Tensor& a, at::Generator& generator) const;

  const MlpShape shape_;
  const RecurrentLayer memory_;
  FlatParameters parameters_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_SAC_NETWORKS_H_
