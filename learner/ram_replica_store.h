#ifndef TROUPE_LEARNER_RAM_REPLICA_STORE_H_
#define TROUPE_LEARNER_RAM_REPLICA_STORE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "learner/replica_store.h"

namespace troupe {

// Where a batch of transitions is put; each has room for one element, or one vector, a transition.
struct TransitionArrays {
  float* s = nullptr;         // observation_size
  float* a = nullptr;         // action_size
  float* r = nullptr;         //
  float* discount = nullptr;  //
  float* s_next = nullptr;    // observation_size
};

// The next number of a SplitMix64 sequence (Steele, Lea and Flood, OOPSLA 2014).
uint64_t NextRandom(uint64_t& state);
// Of the draws of update `update`, so that a run that is resumed draws on.
inline uint64_t DrawSeed(uint64_t seed, int64_t update) {
  return seed * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(update);
}

// A replica in this machine's memory, which is taken as it fills.
class RamReplicaStore final : public ReplicaStore {
 public:
  explicit RamReplicaStore(const ReplicaShape& shape);

  const ReplicaShape& shape() const override { return shape_; }
  absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) override;
  absl::Status WriteTransitions(uint64_t first_number,
                                absl::Span<const ReplicaTransition> transitions) override;
  absl::Status SetRange(uint64_t tail, uint64_t head) override;

  uint64_t tail() const { return tail_; }
  uint64_t head() const { return head_; }
  // REQUIRES: tail() <= number < head().
  const ReplicaTransition& transition(uint64_t number) const {
    return transitions_[number % shape_.capacity];
  }
  // The observation and the action behind it.
  const float* row(uint32_t slot) const { return &rows_[slot * shape_.row_floats()]; }

  // Draws `count` transitions of the range, independently and all alike.  What is drawn follows
  // from `seed` and the range alone.  REQUIRES: the range is not empty.
  void Draw(int64_t count, uint64_t seed, const TransitionArrays& to) const;
  // Those with these numbers.  REQUIRES: they are in the range.
  void Read(absl::Span<const uint64_t> numbers, const TransitionArrays& to) const;

 private:
  void Read(uint64_t number, int64_t i, const TransitionArrays& to) const;

  const ReplicaShape shape_;
  const std::unique_ptr<float[]> rows_;
  const std::unique_ptr<ReplicaTransition[]> transitions_;
  uint64_t tail_ = 0;
  uint64_t head_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_RAM_REPLICA_STORE_H_
