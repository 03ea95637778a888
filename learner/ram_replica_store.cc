#include "learner/ram_replica_store.h"

#include <algorithm>

namespace troupe {

uint64_t NextRandom(uint64_t& state) {
  state += 0x9e3779b97f4a7c15;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

namespace {

// Uniform in [0, n), but for n / 2^64.
uint64_t Below(uint64_t n, uint64_t random) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * n) >> 64);
}

}  // namespace

RamReplicaStore::RamReplicaStore(const ReplicaShape& shape)
    : shape_(shape),
      rows_(std::make_unique_for_overwrite<float[]>(shape.capacity * shape.row_floats())),
      transitions_(new ReplicaTransition[shape.capacity]) {}

absl::Status RamReplicaStore::WriteRows(uint32_t first_slot, absl::Span<const float> rows) {
  std::copy(rows.begin(), rows.end(), &rows_[first_slot * shape_.row_floats()]);
  return absl::OkStatus();
}

absl::Status RamReplicaStore::WriteTransitions(uint64_t first_number,
                                               absl::Span<const ReplicaTransition> transitions) {
  for (const ReplicaTransition& transition : transitions) {
    transitions_[first_number++ % shape_.capacity] = transition;
  }
  return absl::OkStatus();
}

absl::Status RamReplicaStore::SetRange(uint64_t tail, uint64_t head) {
  tail_ = tail;
  head_ = head;
  return absl::OkStatus();
}

void RamReplicaStore::Draw(int64_t count, uint64_t seed, const TransitionArrays& to) const {
  uint64_t random = seed;
  for (int64_t i = 0; i < count; ++i) {
    Read(tail_ + Below(head_ - tail_, NextRandom(random)), i, to);
  }
}

void RamReplicaStore::Read(absl::Span<const uint64_t> numbers, const TransitionArrays& to) const {
  for (size_t i = 0; i < numbers.size(); ++i) Read(numbers[i], static_cast<int64_t>(i), to);
}

void RamReplicaStore::Read(uint64_t number, int64_t i, const TransitionArrays& to) const {
  const int64_t observation_size = shape_.observation_size;
  const int64_t action_size = shape_.action_size;
  const ReplicaTransition& drawn = transition(number);
  const float* const state = row(drawn.state_slot);
  std::copy_n(state, observation_size, to.s + i * observation_size);
  std::copy_n(state + observation_size, action_size, to.a + i * action_size);
  std::copy_n(row(drawn.next_slot), observation_size, to.s_next + i * observation_size);
  to.r[i] = drawn.reward;
  to.discount[i] = drawn.discount;
}

}  // namespace troupe
