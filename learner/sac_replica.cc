// The part of Sac that draws its batches from a replica.
#include <new>

#include "absl/strings/str_cat.h"
#include "learner/replica_transitions.h"
#include "learner/sac.h"

namespace troupe {

absl::StatusOr<ReplicaStore*> Sac::MakeReplica(const ReplicaShape& shape) {
  try {
    if (prioritized_) {
      prioritized_replica_ =
          std::make_unique<PrioritizedReplicaStore>(shape, prioritized_->priority_exponent());
      return prioritized_replica_.get();
    }
    replica_ = std::make_unique<RamReplicaStore>(shape);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a replica of ", shape.size_bytes(), " bytes"));
  }
  return replica_.get();
}

absl::Status Sac::UpdateFromReplica(int64_t count, int64_t env_steps) {
  try {
    for (int64_t i = 0; i < count; ++i) {
      uint64_t seed = DrawSeed(generator_.current_seed(), updates_);
      if (ranks_ != nullptr) seed = seed * ranks_->size() + ranks_->rank();
      const absl::Status status =
          Step(prioritized_replica_ != nullptr
                   ? DrawByPriority(seed, env_steps)
                   : DrawTransitions(*replica_, config_.batch_size(), seed, log_alpha_.options()));
      if (!status.ok()) return status;
      if (prioritized_replica_ != nullptr) {
        prioritized_replica_->SetPriorities(drawn_, Priorities());
      }
    }
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates_ + 1, ": ", e.what()));
  }
  return absl::OkStatus();
}

Transitions Sac::DrawByPriority(uint64_t seed, int64_t env_steps) {
  drawn_.resize(config_.batch_size());
  std::vector<float> probabilities(drawn_.size());
  prioritized_replica_->Draw(seed, absl::MakeSpan(drawn_), absl::MakeSpan(probabilities));
  Transitions b = ReadTransitions(prioritized_replica_->replica(), drawn_, log_alpha_.options());
  b.weight =
      torch::tensor(prioritized_->Weights(probabilities, env_steps)).to(log_alpha_.options());
  return b;
}

}  // namespace troupe
