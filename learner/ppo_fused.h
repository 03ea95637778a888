#ifndef TROUPE_LEARNER_PPO_FUSED_H_
#define TROUPE_LEARNER_PPO_FUSED_H_

#include <torch/torch.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/flat_parameters.h"
#include "common/policy.h"
#include "learner/adam.h"
#include "learner/fused/ppo_engine.h"
#include "learner/ppo_steps.h"
#include "proto/config.pb.h"

namespace troupe {

// Makes the engine that computes a model; UNIMPLEMENTED says why there is none.
using MakePpoEngine =
    std::function<absl::StatusOr<std::unique_ptr<PpoEngine>>(const PpoModel& model)>;

// What a network has learned, in this machine's memory.
struct LearnedNetwork {
  FlatParameters& parameters;
  Adam& adam;
};

// PPO's gradient steps by a fused engine, on the parameters of the reference's networks.
//
// Not thread-safe.
class FusedPpo final {
 public:
  // UNIMPLEMENTED names the setting that no engine computes, or is the engine's.
  static absl::StatusOr<std::unique_ptr<FusedPpo>> Create(const proto::Ppo& config,
                                                          const PolicyMetadata& policy,
                                                          const MakePpoEngine& make);

  explicit FusedPpo(std::unique_ptr<PpoEngine> engine) : engine_(std::move(engine)) {}

  // PpoEngine::Improve; `order`: int64, [epochs, steps].
  absl::StatusOr<PpoProgress> Improve(const PpoSteps& steps, const torch::Tensor& order,
                                      int64_t minibatches, double learning_rate,
                                      const LearnedNetwork& actor, const LearnedNetwork& critic);

 private:
  const std::unique_ptr<PpoEngine> engine_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_FUSED_H_
