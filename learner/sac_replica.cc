// The part of Sac that draws its batches from a replica.
#include <new>

#include "absl/strings/str_cat.h"
#include "learner/replica_transitions.h"
#include "learner/sac.h"

namespace troupe {

absl::StatusOr<ReplicaStore*> Sac::MakeReplica(const ReplicaShape& shape) {
  try {
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
      // Of its own for each update, so that a run that is resumed draws on, and each rank.
      uint64_t seed = generator_.current_seed() * 0x9e3779b97f4a7c15 + updates_;
      if (ranks_ != nullptr) seed = seed * ranks_->size() + ranks_->rank();
      const absl::Status status =
          Step(DrawTransitions(*replica_, config_.batch_size(), seed, log_alpha_.options()));
      if (!status.ok()) return status;
    }
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates_ + 1, ": ", e.what()));
  }
  return absl::OkStatus();
}

}  // namespace troupe
