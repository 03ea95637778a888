#ifndef TROUPE_LEARNER_PRIORITIZED_REPLICA_STORE_H_
#define TROUPE_LEARNER_PRIORITIZED_REPLICA_STORE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "learner/ram_replica_store.h"

namespace troupe {

// A replica in this machine's memory whose transitions are drawn with probabilities proportional to
// priority^exponent, as a shard's PRIORITIZED table draws windows (Prioritized Experience Replay,
// arXiv 1511.05952).
//
// A transition that comes into the range has the largest priority that any ever had, at first 1.
// Priorities live here alone: a replica that is built anew begins with all alike.
class PrioritizedReplicaStore final : public ReplicaStore {
 public:
  PrioritizedReplicaStore(const ReplicaShape& shape, double priority_exponent);

  // Of the priorities of a replica with this capacity.
  static int64_t TreeBytes(uint32_t capacity);

  const ReplicaShape& shape() const override { return replica_.shape(); }
  absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) override {
    return replica_.WriteRows(first_slot, rows);
  }
  absl::Status WriteTransitions(uint64_t first_number,
                                absl::Span<const ReplicaTransition> transitions) override {
    return replica_.WriteTransitions(first_number, transitions);
  }
  absl::Status SetRange(uint64_t tail, uint64_t head) override;

  const RamReplicaStore& replica() const { return replica_; }

  // Draws as many transitions of the range as `numbers` has room for, independently, which follow
  // from `seed`; `probabilities`: of each.  REQUIRES: the range is not empty.
  void Draw(uint64_t seed, absl::Span<uint64_t> numbers, absl::Span<float> probabilities) const;
  // Those that are no longer in the range are left out.  Of one that is there twice the last
  // counts.
  void SetPriorities(absl::Span<const uint64_t> numbers, absl::Span<const float> priorities);

 private:
  float WeightOf(float priority) const;
  // Gives these places one weight, and their sums; places begin and end with the ring's.
  void SetPlaces(uint64_t begin, uint64_t end, double weight);
  // The same for transitions begin, ..., end - 1, at most the ring's capacity.
  void SetNumbers(uint64_t begin, uint64_t end, double weight);

  RamReplicaStore replica_;
  const double exponent_;
  const uint64_t leaves_;  // a power of two
  // A binary tree: node i is the sum of 2 i and 2 i + 1, and is always added up anew, so that no
  // rounding errors pile up; the places of the ring are the nodes from leaves_ on.
  std::vector<double> sums_;
  float max_priority_ = 1;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PRIORITIZED_REPLICA_STORE_H_
