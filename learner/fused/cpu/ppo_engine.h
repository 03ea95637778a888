#ifndef TROUPE_LEARNER_FUSED_CPU_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CPU_PPO_ENGINE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "learner/fused/cpu/padded_mlp.h"
#include "learner/ppo_gradient.h"
#include "proto/config.pb.h"

namespace troupe::cpu {

// A vector of parameters as FlatParameters has it, with Adam's moments of it; somebody else's.
struct DescendedFloats {
  float* values = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  int64_t steps = 0;
};

// All steps of a batch, somebody else's; [n] each, or [n, size].
struct PpoStepArrays {
  const float* s = nullptr;  // normalized
  const float* a = nullptr;
  const float* log_mu = nullptr;
  const float* advantage = nullptr;
  const float* target = nullptr;
  const float* v_old = nullptr;
};

// PPO's gradient steps for a Gaussian policy, with gradients derived by hand.  Nothing is
// allocated in a step.
//
// Not thread-safe.
class PpoEngine final {
 public:
  // REQUIRES: HasClosedGradient(config); networks without LayerNorm and dropout.
  PpoEngine(const proto::Ppo& config, const FlatNetwork& actor, Unit actor_unit,
            const FlatNetwork& critic, Unit critic_unit, const Kernels& kernels = BestKernels());

  // The actor's vector is its network's parameters, then the log standard deviations.
  void Load(const DescendedFloats& actor, const DescendedFloats& critic);
  void Store(DescendedFloats& actor, DescendedFloats& critic) const;

  // One gradient step on these rows of `steps`; nullptr and none if the KL is above max_kl.
  const PpoLoss* Step(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                      double learning_rate);

 private:
  // A network with all that is learned of it.
  struct Part {
    PaddedMlp mlp;
    AlignedFloats values, m, v, gradient, transposed;
    MlpBlock block;
    int64_t adam_steps = 0;

    Part(const FlatNetwork& network, Unit unit, const Kernels& kernels, int64_t more_parameters);
    void Load(const DescendedFloats& from, int64_t flat_size, int64_t more);
    void Store(DescendedFloats& to, int64_t flat_size, int64_t more) const;
  };

  void Gather(const PpoStepArrays& steps, absl::Span<const int64_t> rows);
  // Adds the gradient of a block, which is the first of its minibatch or not.
  void Differentiate(int64_t rows, int64_t minibatch_size, const AdvantageScale& scale, bool first);
  float ClipFactor() const;
  void Descend(Part& part, float gradient_scale, double learning_rate);

  const proto::Ppo config_;
  const Kernels& kernels_;
  const int64_t observation_size_, action_size_, actor_size_, critic_size_;
  Part actor_, critic_;
  // Of the block that is worked on.
  AlignedFloats s_, a_, log_mu_, advantage_, target_, v_old_;
  std::vector<float> advantages_;  // of the minibatch
  PpoLoss loss_;
};

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_PPO_ENGINE_H_
