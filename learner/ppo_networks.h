#ifndef TROUPE_LEARNER_PPO_NETWORKS_H_
#define TROUPE_LEARNER_PPO_NETWORKS_H_

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "common/flat_parameters.h"
#include "common/image_encoder.h"
#include "common/mlp.h"
#include "common/policy.h"
#include "common/recurrent.h"
#include "proto/config.pb.h"

namespace troupe {

// `spec` with PPO's defaults written out: two hidden layers of 64 units, tanh; behind an encoder of
// images none, the head alone.
proto::Mlp PpoNetwork(proto::Mlp spec, bool has_images);

// The policy pi of PPO: a Gaussian with a state-independent standard deviation, or choices.
// Not thread-safe.
class PpoActor final {
 public:
  // `metadata`: distribution, sizes and network of the policy.
  PpoActor(const PolicyMetadata& metadata, torch::TensorOptions options);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }
  // [action_size]; Gaussian only.
  const torch::Tensor& log_std() const { return parameters_.trainable().back(); }

  // What the networks see of normalized observations: these beside the memory's output, if there is
  // one.
  torch::Tensor See(const RowSequences& rows) const {
    return SeeSequences(memory_, parameters_.trainable(), rows);
  }
  // The same of normalized observations, [N, observation_size], and images, uint8 [N, frame_stack,
  // height, width, channels]: [N, inputs].
  torch::Tensor See(const torch::Tensor& s, const torch::Tensor& images) const;
  // What the network says of what it sees, [B, head]; gradients reach the parameters
  // unless gradient mode is off.
  torch::Tensor Head(const torch::Tensor& s) const;
  // log pi(a|s), [B].
  torch::Tensor LogProb(const torch::Tensor& head, const torch::Tensor& a) const;
  // Mean over the batch, in nats.
  torch::Tensor Entropy(const torch::Tensor& head) const;
  // KL(old || now), [B].
  torch::Tensor Kl(const torch::Tensor& old_head, const torch::Tensor& old_log_std,
                   const torch::Tensor& head) const;

 private:
  const bool discrete_;
  const std::vector<int64_t> num_choices_;
  const MlpShape shape_;
  const RecurrentLayer memory_;
  const ImageEncoderShape encoder_;
  FlatParameters parameters_;
};

// The value function V of what the policy sees.  Not thread-safe.
class PpoCritic final {
 public:
  // `trains_inputs`: gradients reach what makes `s`, an encoder that it shares with the policy.
  PpoCritic(const proto::Mlp& network, int64_t inputs, bool trains_inputs,
            torch::TensorOptions options);

  FlatParameters& parameters() { return parameters_; }
  const FlatParameters& parameters() const { return parameters_; }

  // V(s), [B].
  torch::Tensor Value(const torch::Tensor& s) const;

 private:
  const MlpShape shape_;
  const bool trains_inputs_;
  FlatParameters parameters_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_NETWORKS_H_
