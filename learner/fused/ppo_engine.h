#ifndef TROUPE_LEARNER_FUSED_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_PPO_ENGINE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/fused/flat_network.h"
#include "learner/fused/sac_formulas.h"
#include "proto/config.pb.h"

namespace troupe {

// What a fused engine of PPO computes: a policy, Gaussian or of choices, and a value function, MLPs
// both, without LayerNorm and dropout.
struct PpoModel {
  proto::Ppo config;  // HasClosedGradient(config)
  FlatNetwork actor, critic;
  HiddenUnit actor_unit = HiddenUnit::kTanh, critic_unit = HiddenUnit::kTanh;
  std::vector<int64_t> num_choices = {};  // of each element of an action; empty: a Gaussian

  int64_t observation_size() const { return actor.layers[0].k; }
  bool discrete() const { return !num_choices.empty(); }
  int64_t action_size() const {
    return discrete() ? static_cast<int64_t>(num_choices.size()) : actor.head().n;
  }
  // Log standard deviations behind the actor's network.
  int64_t num_log_stds() const { return discrete() ? 0 : actor.head().n; }
};

// A vector of parameters as FlatParameters has it, with Adam's moments of it; somebody else's.
struct DescendedFloats {
  float* values = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  int64_t steps = 0;
};

// All steps of a batch, in this machine's memory, somebody else's; [n] each, or [n, size].
struct PpoStepArrays {
  const float* s = nullptr;  // normalized
  const float* a = nullptr;  // choices: their numbers
  const float* log_mu = nullptr;
  const float* advantage = nullptr;
  const float* target = nullptr;
  const float* v_old = nullptr;
};

// Which rows of a batch make its minibatches: in each epoch all of them in another order, cut into
// parts as equal as can be.
struct PpoSchedule {
  int64_t rows = 0;
  int64_t epochs = 0;
  int64_t minibatches = 0;            // of an epoch; 1, ..., rows
  absl::Span<const int64_t> order{};  // [epochs, rows]

  absl::Span<const int64_t> Minibatch(int64_t epoch, int64_t i) const {
    const int64_t begin = i * rows / minibatches, end = (i + 1) * rows / minibatches;
    return order.subspan(epoch * rows + begin, end - begin);
  }
};

// What the epochs did: sums over the minibatches of the last one that was begun.
struct PpoProgress {
  int64_t steps = 0;             // gradient steps of all epochs
  int64_t last_epoch_steps = 0;  // that the sums are over
  double surrogate = 0, value_loss = 0, kl = 0, clip_fraction = 0, entropy = 0;
};

// PPO's gradient steps with gradients derived by hand.
//
// Not thread-safe.
class PpoEngine {
 public:
  virtual ~PpoEngine() = default;

  // The actor's vector is its network's parameters, then a Gaussian's log standard deviations.
  virtual absl::Status Load(const DescendedFloats& actor, const DescendedFloats& critic) = 0;
  virtual absl::Status Store(DescendedFloats& actor, DescendedFloats& critic) const = 0;

  // One gradient step for each minibatch; ends before the first one whose KL is above max_kl.
  virtual absl::StatusOr<PpoProgress> Improve(const PpoStepArrays& steps,
                                              const PpoSchedule& schedule,
                                              double learning_rate) = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_ENGINE_H_
