#ifndef TROUPE_LEARNER_REPLICA_STORE_H_
#define TROUPE_LEARNER_REPLICA_STORE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace troupe {

// How large a replica is.
struct ReplicaShape {
  uint32_t capacity = 0;         // slots of the ring of rows, and of the ring of transitions
  int64_t observation_size = 0;  // floats
  int64_t action_size = 0;       // floats

  // Floats of one row: the observation, then the action scaled to (-1, 1).
  int64_t row_floats() const { return observation_size + action_size; }
  // Of both rings.
  int64_t size_bytes() const;
};

// From the row in one slot to the row in another, k <= n steps later.  A final row has an
// observation alone; its action is whatever was packed.
struct ReplicaTransition {
  uint32_t state_slot = 0;
  uint32_t next_slot = 0;
  float reward = 0;    // sum of gamma^i r_i over the k steps
  float discount = 0;  // gamma^k; 0 if the episode terminated in the next state
};
static_assert(sizeof(ReplicaTransition) == 16);

inline int64_t ReplicaShape::size_bytes() const {
  const int64_t slot_bytes = row_floats() * static_cast<int64_t>(sizeof(float)) +
                             static_cast<int64_t>(sizeof(ReplicaTransition));
  return capacity * slot_bytes;
}

// The memory of a replica of the table: a ring of rows, and a ring of transitions between them,
// which are numbered 0, 1, 2, ... for ever; transition i lies at slot i % capacity.  What may be
// drawn are the transitions of the range [tail, head), all alike:
//   number = tail + floor(u * (head - tail)), u uniform in [0, 1).
//
// Not thread-safe: written and drawn from by the learner's one thread.  The calls take effect in
// their order, also with respect to draws, though on a device all of it may still be under way on
// return: a draw that is begun after SetRange() sees its range and everything written before.
// The spans are free for other use on return.
class ReplicaStore {
 public:
  virtual ~ReplicaStore() = default;

  virtual const ReplicaShape& shape() const = 0;

  // Rows for the slots from `first_slot` on, row_floats() each.  REQUIRES: they do not go past the
  // last slot, and no transition of the range uses one of them.
  virtual absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) = 0;
  // Transitions numbered from `first_number` on; they may go past the end of the ring and on at its
  // beginning.  REQUIRES: none of them, nor what lay in their slots, is in the range.
  virtual absl::Status WriteTransitions(uint64_t first_number,
                                        absl::Span<const ReplicaTransition> transitions) = 0;
  // REQUIRES: tail <= head <= tail + capacity.
  virtual absl::Status SetRange(uint64_t tail, uint64_t head) = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_REPLICA_STORE_H_
