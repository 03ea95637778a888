#ifndef TROUPE_LEARNER_REPLICA_TRANSITIONS_H_
#define TROUPE_LEARNER_REPLICA_TRANSITIONS_H_

#include <torch/torch.h>

#include <cstdint>

#include "learner/ram_replica_store.h"
#include "learner/transitions.h"

namespace troupe {

// Draws `count` transitions from a replica that is not empty.  The discount of a terminal
// transition is 0, so that `d` is.  `tensors`: dtype and device.
Transitions DrawTransitions(const RamReplicaStore& replica, int64_t count, uint64_t seed,
                            const torch::TensorOptions& tensors);
// The same of those that were drawn by priority, without their weights.
Transitions ReadTransitions(const RamReplicaStore& replica, absl::Span<const uint64_t> numbers,
                            const torch::TensorOptions& tensors);

}  // namespace troupe

#endif  // TROUPE_LEARNER_REPLICA_TRANSITIONS_H_
