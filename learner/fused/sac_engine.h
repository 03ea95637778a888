#ifndef TROUPE_LEARNER_FUSED_SAC_ENGINE_H_
#define TROUPE_LEARNER_FUSED_SAC_ENGINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/fused/flat_network.h"
#include "learner/fused/sac_formulas.h"
#include "learner/replica_store.h"

namespace troupe {

// What a fused engine computes: SAC with an ensemble of critics Q(s, a), a squashed Gaussian
// policy, and networks without dropout.
struct SacModel {
  int64_t observation_size = 0;
  int64_t action_size = 0;
  std::vector<int64_t> actor_hidden, critic_hidden;  // widths
  HiddenUnit actor_unit = HiddenUnit::kRelu, critic_unit = HiddenUnit::kRelu;
  // LayerNorm of each hidden layer's sums, before the unit.
  bool actor_layer_norm = false, critic_layer_norm = false;
  int64_t num_critics = 2;
  // The critics' target takes the least of so many critics, drawn anew for each update (REDQ, arXiv
  // 2101.05982); num_critics: of all of them.
  int64_t target_subset = 2;

  int64_t batch_size = 256;
  float tau = 0.005f;
  float actor_learning_rate = 3e-4f, critic_learning_rate = 3e-4f, alpha_learning_rate = 3e-4f;
  bool has_entropy = true;            // else alpha is 0 everywhere
  bool automatic_temperature = true;  // else alpha stays as it is
  bool backup_entropy = true;         // the entropy is in the critics' target
  bool actor_uses_mean_critic = false;
  float target_entropy = 0;  // nats
  int64_t actor_update_interval = 1;
  float log_std_min = -20, log_std_max = 2;
  uint64_t seed = 1;
};

// Where the parameters of the policy, and of all critics, lie in their vectors.
FlatNetwork ActorNetwork(const SacModel& model);
FlatNetwork CriticNetwork(const SacModel& model);

// For engines that compute two critics, both of them in the target, and with as many layers as the
// policy has: UNIMPLEMENTED names what the model has beyond it.
absl::Status CheckTwinCritics(const SacModel& model);

// One vector and Adam's moments of it.
struct DescendedVector {
  std::vector<float> values, m, v;
  int64_t steps = 0;
};

// Everything that an update depends on besides its batch.
struct SacState {
  DescendedVector actor, critics, log_alpha;  // log_alpha has one element
  std::vector<float> target_critics;
  int64_t updates = 0;
  uint64_t seed = 1;  // of the draws, with `updates` as their counter
};

// Of the last update, and of its last one with an actor step.
struct SacStatistics {
  float q_loss = 0, q_mean = 0, alpha = 0, actor_loss = 0, entropy = 0;
};

// Transitions in memory: what a replica holds, drawn in order.
struct SacBatch {
  absl::Span<const float> rows;  // [slots, observation_size + action_size], as in a replica
  absl::Span<const ReplicaTransition> transitions;  // [batch_size], or of this rank's share
  // Of each one's squared errors, as many as transitions; empty: all are 1.
  absl::Span<const float> weights;
  // Standard normal, [2, batch_size, action_size]: of a' and of a.  Empty: the engine's own.
  absl::Span<const float> noise;
  // The critics whose least value is in the target, target_subset of them.  Empty: the engine draws
  // them, by DrawSubset.
  absl::Span<const int32_t> target_critics;
};

// SAC's update with gradients derived by hand.  All engines take and give the same state, draw the
// same numbers for the same seed and update, and agree to rounding.
//
// Not thread-safe.
class SacEngine {
 public:
  virtual ~SacEngine() = default;

  virtual const SacModel& model() const = 0;

  // One update.  The spans are free on return, though the work may still be under way.
  // UNIMPLEMENTED: there are weights, and this engine takes none.
  virtual absl::Status Update(const SacBatch& batch) = 0;
  // Of each transition of the last Update(), |Q - y| as the mean over the critics; empty where the
  // engine takes no weights.
  virtual std::vector<float> AbsoluteErrors() const { return {}; }

  // The replica that UpdateFromReplica draws from; made at the first call, which names its shape.
  // It belongs to the engine.  RESOURCE_EXHAUSTED: no memory for it.
  virtual absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) = 0;
  // `count` updates on transitions drawn uniformly from the replica's range.  The work may still be
  // under way on return, but not that of the call before.
  // FAILED_PRECONDITION: there is no replica, or its range is empty.
  virtual absl::Status UpdateFromReplica(int64_t count) = 0;

  virtual int64_t updates() const = 0;

  // Begins to copy the policy's parameters as they are after the updates begun so far, and returns
  // at once.  False: this engine has nothing to begin.
  virtual bool TakeActor() { return false; }
  // The last copy taken; waits for it, not for updates begun later.  REQUIRES: TakeActor() was
  // true.
  virtual absl::StatusOr<std::vector<float>> TakenActor() const {
    return absl::UnimplementedError("nothing was taken");
  }

  // The following wait for the updates that were begun.
  virtual absl::StatusOr<SacStatistics> Statistics() const = 0;
  virtual absl::StatusOr<std::vector<float>> ActorParameters() const = 0;
  virtual absl::StatusOr<SacState> Save() const = 0;
  // REQUIRES: the sizes are the model's.
  virtual absl::Status Load(const SacState& state) = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_SAC_ENGINE_H_
