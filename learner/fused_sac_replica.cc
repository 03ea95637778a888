// The part of FusedSac that draws its batches from a replica.
#include <algorithm>
#include <new>

#include "absl/strings/str_cat.h"
#include "learner/fused_sac.h"

namespace troupe {

absl::StatusOr<ReplicaStore*> FusedSac::MakeReplica(const ReplicaShape& shape) {
  if (!prioritized_) return engine_->MakeReplica(shape);
  try {
    replica_ = std::make_unique<PrioritizedReplicaStore>(shape, prioritized_->priority_exponent());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a replica of ", shape.size_bytes(), " bytes"));
  }
  return replica_.get();
}

absl::Status FusedSac::UpdateFromReplica(int64_t count, int64_t env_steps) {
  if (!prioritized_) return engine_->UpdateFromReplica(count);
  if (replica_ == nullptr || replica_->replica().head() == replica_->replica().tail()) {
    return absl::FailedPreconditionError("the replica holds no transitions");
  }
  for (; count > 0; --count) {
    if (absl::Status status = UpdateByPriority(env_steps); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FusedSac::UpdateByPriority(int64_t env_steps) {
  const auto batch = static_cast<size_t>(config_.batch_size());
  const RamReplicaStore& replica = replica_->replica();
  const int64_t row_floats = replica.shape().row_floats();
  drawn_.resize(batch);
  probabilities_.resize(batch);
  transitions_.resize(batch);
  rows_.resize(2 * batch * row_floats);
  replica_->Draw(DrawSeed(draw_seed_, updates()), absl::MakeSpan(drawn_),
                 absl::MakeSpan(probabilities_));
  for (uint32_t i = 0; i < batch; ++i) {
    const ReplicaTransition& drawn = replica.transition(drawn_[i]);
    float* const rows = rows_.data() + 2 * i * row_floats;
    std::copy_n(replica.row(drawn.state_slot), row_floats, rows);
    std::copy_n(replica.row(drawn.next_slot), row_floats, rows + row_floats);
    transitions_[i] = {2 * i, 2 * i + 1, drawn.reward, drawn.discount};
  }
  const std::vector<float> weights = prioritized_->Weights(probabilities_, env_steps);
  absl::Status status = engine_->Update(
      {.rows = rows_, .transitions = transitions_, .weights = weights, .noise = {}});
  if (status.ok()) replica_->SetPriorities(drawn_, Priorities());
  return status;
}

}  // namespace troupe
