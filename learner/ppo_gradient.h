#ifndef TROUPE_LEARNER_PPO_GRADIENT_H_
#define TROUPE_LEARNER_PPO_GRADIENT_H_

#include <torch/torch.h>

#include "proto/config.pb.h"

namespace troupe {

// What PPO's loss  value_coefficient L_V - surrogate - entropy_coefficient H  depends on, for a
// Gaussian policy; float32 on the CPU, contiguous.
struct GaussianPpoInputs {
  torch::Tensor mean;       // [B, A]
  torch::Tensor log_std;    // [A]
  torch::Tensor v;          // [B]
  torch::Tensor a;          // [B, A]
  torch::Tensor log_mu;     // [B]
  torch::Tensor advantage;  // [B], as estimated
  torch::Tensor target;     // [B]
  torch::Tensor v_old;      // [B]
};

// The loss's parts, and its gradients.
struct GaussianPpoGradient {
  torch::Tensor mean, log_std, v;
  double surrogate = 0;
  double value_loss = 0;
  double entropy = 0;
  double kl = 0;             // ApproximateKl
  double clip_fraction = 0;  // of ratios beyond clip_epsilon
};

// True where GradientOfGaussianPpo knows the surrogate.
bool HasClosedGradient(const proto::Ppo& config);

// The same as the objectives of ppo_objectives.h and their backward(), in one pass over the batch
// where LibTorch would make a hundred small operations.
GaussianPpoGradient GradientOfGaussianPpo(const proto::Ppo& config,
                                          const GaussianPpoInputs& inputs);

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_GRADIENT_H_
