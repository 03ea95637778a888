#ifndef TROUPE_LEARNER_PPO_FUSED_H_
#define TROUPE_LEARNER_PPO_FUSED_H_

#include <torch/torch.h>

#include "absl/status/status.h"
#include "common/flat_parameters.h"
#include "common/policy.h"
#include "learner/adam.h"
#include "learner/fused/cpu/ppo_engine.h"
#include "learner/ppo_steps.h"
#include "proto/config.pb.h"

namespace troupe {

// PPO's gradient steps by the fused engine, on the parameters of the reference's networks: what is
// learned between Load and Store is the engine's.
//
// Not thread-safe.
class FusedPpo final {
 public:
  // UNIMPLEMENTED names the setting that the engine does not compute.
  static absl::Status Covers(const proto::Ppo& config, const PolicyMetadata& policy);

  // On the CPU.  REQUIRES: Covers().
  FusedPpo(const proto::Ppo& config, const PolicyMetadata& policy);

  void Load(const FlatParameters& actor, const FlatParameters& critic, const Adam& actor_adam,
            const Adam& critic_adam);
  void Store(FlatParameters& actor, FlatParameters& critic, Adam& actor_adam,
             Adam& critic_adam) const;

  // PpoEngine::Step; `rows`: int64.
  const PpoLoss* Step(const PpoSteps& steps, const torch::Tensor& rows, double learning_rate);

 private:
  cpu::PpoEngine engine_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_FUSED_H_
