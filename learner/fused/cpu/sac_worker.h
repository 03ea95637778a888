#ifndef TROUPE_LEARNER_FUSED_CPU_SAC_WORKER_H_
#define TROUPE_LEARNER_FUSED_CPU_SAC_WORKER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "learner/fused/cpu/aligned_floats.h"
#include "learner/fused/cpu/kernels.h"
#include "learner/fused/cpu/padded_mlp.h"
#include "learner/fused/philox.h"
#include "learner/fused/sac_engine.h"

namespace troupe::cpu {

// The networks of SAC, and the parameters that the passes read.
struct SacNetworks {
  const PaddedMlp& actor_mlp;
  const PaddedMlp& critic_mlp;
  const AlignedFloats &actor, &actor_transposed;
  // Of all critics, one after the other.
  const AlignedFloats &critics, &critics_transposed, &target_critics;
};

// What the rows of a worker add to the sums over the batch.
struct SacSums {
  double squared_error = 0;  // of all critics
  double q = 0;              // of all critics
  double actor_loss = 0;
  double log_pi = 0;
};

// One thread's share of a batch: the passes over its rows, in blocks that stay in the cache.  The
// formulas are those of sac_formulas.h.
//
// Not thread-safe; workers share nothing but what they read.
class SacWorker final {
 public:
  // Of rows begin, ..., end - 1 of the batch.
  SacWorker(const SacModel& model, const SacNetworks& networks, const Kernels& kernels,
            int64_t begin, int64_t end);

  // Takes transition `i` of this worker's rows; `rows`: as a replica has them; `weight`: of its
  // squared errors.
  void SetTransition(int64_t i, const ReplicaTransition& transition, const float* rows,
                     float weight = 1);

  // What an update draws.  Noise is that of update `update` or, where it is given, comes from
  // there.
  struct Draws {
    uint64_t seed = 0, update = 0;
    const float *of_next_action = nullptr, *of_action = nullptr;  // [batch_size, action_size]
    absl::Span<const int32_t> target_critics;  // the least of these is in the target
  };

  // Sets the gradient of the critics' objective by their parameters.
  void DifferentiateCritics(const Draws& draws, float alpha);
  // Sets the gradient of the actor's.
  void DifferentiateActor(const Draws& draws, float alpha);

  int64_t begin() const { return begin_; }
  int64_t size() const { return end_ - begin_; }
  AlignedFloats& critic_gradient() { return critic_gradient_; }
  AlignedFloats& actor_gradient() { return actor_gradient_; }
  const SacSums& sums() const { return sums_; }
  // |Q - y| of each row, the mean over the critics.
  absl::Span<const float> absolute_errors() const {
    return {absolute_errors_.data(), static_cast<size_t>(size())};
  }

 private:
  // A block of rows, first .. first + count - 1 of this worker's.
  struct Range {
    int64_t first, count;
  };

  int64_t action_stride() const { return RoomFor(model_.action_size); }
  InputRows RowsOf(const AlignedFloats& inputs, const Range& range) const;
  // Draws the actions of actor_.output into `inputs`; leaves log_pi_ and the rest.
  void SampleActions(const Range& range, const Draws& draws, Draw what, AlignedFloats& inputs);
  void DrawNoise(const Range& range, const Draws& draws, Draw what);
  void DifferentiateCriticsOf(const Range& range, const Draws& draws, float alpha);
  void DifferentiateActorOf(const Range& range, const Draws& draws, float alpha);
  // y_ = the target of the critics, whose noise and log pi are drawn for it.
  void MakeTargets(const Range& range, const Draws& draws, float alpha);
  void DifferentiateCritic(int64_t e, const Range& range);
  // action_gradient_ = -dQ/da / batch of the critics that the objective takes.
  void DifferentiateByAction(const Range& range);
  // Adds what one of them adds to it, where `least_` and `ties_` say what it is worth.
  void AddGradientByAction(int64_t e, const Range& range);
  const float* Critic(const AlignedFloats& of_all, int64_t e) const {
    return of_all.data() + e * networks_.critic_mlp.size();
  }
  const float* Transposed(int64_t e) const {
    return networks_.critics_transposed.data() + e * networks_.critic_mlp.transposed_size();
  }

  const SacModel model_;
  const SacNetworks networks_;
  const Kernels& kernels_;
  const int64_t begin_, end_, inputs_;
  const int64_t input_stride_;  // of a critic's inputs: s, a
  const float inverse_batch_, inverse_critics_;

  AlignedFloats now_, next_;  // [rows, input_stride_]
  AlignedFloats reward_, discount_, weight_, absolute_errors_;
  // Of the block that is worked on.
  MlpBlock actor_;
  std::vector<MlpBlock> critics_;
  AlignedFloats y_, log_pi_;
  AlignedFloats least_, ties_;  // of the critics' values: the least, and how many have it
  AlignedFloats mean_, log_std_, noise_, action_, spread_, is_free_, log_prob_;  // [rows, act]
  AlignedArray<uint32_t> word0_, word1_;
  AlignedFloats action_gradient_, one_critics_;  // [rows, room for act]
  std::vector<int32_t> picks_;

  AlignedFloats critic_gradient_, actor_gradient_;
  SacSums sums_;
};

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_SAC_WORKER_H_
