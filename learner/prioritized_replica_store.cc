#include "learner/prioritized_replica_store.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace troupe {

PrioritizedReplicaStore::PrioritizedReplicaStore(const ReplicaShape& shape,
                                                 double priority_exponent)
    : replica_(shape),
      exponent_(priority_exponent),
      leaves_(std::bit_ceil(uint64_t{std::max<uint32_t>(shape.capacity, 1)})),
      sums_(2 * leaves_, 0) {}

int64_t PrioritizedReplicaStore::TreeBytes(uint32_t capacity) {
  return static_cast<int64_t>(2 * std::bit_ceil(uint64_t{capacity}) * sizeof(double));
}

float PrioritizedReplicaStore::WeightOf(float priority) const {
  return static_cast<float>(std::pow(priority, exponent_));
}

absl::Status PrioritizedReplicaStore::SetRange(uint64_t tail, uint64_t head) {
  const uint64_t old_tail = replica_.tail(), old_head = replica_.head();
  absl::Status status = replica_.SetRange(tail, head);
  if (!status.ok()) return status;
  // What leaves goes first, for what comes may take its places.
  SetNumbers(old_tail, std::clamp(tail, old_tail, old_head), 0);
  SetNumbers(std::clamp(old_head, tail, head), head, WeightOf(max_priority_));
  return absl::OkStatus();
}

void PrioritizedReplicaStore::SetNumbers(uint64_t begin, uint64_t end, double weight) {
  if (begin == end) return;
  const uint64_t capacity = shape().capacity, first = begin % capacity, count = end - begin;
  const uint64_t before_the_turn = std::min(count, capacity - first);
  SetPlaces(first, first + before_the_turn, weight);
  if (count > before_the_turn) SetPlaces(0, count - before_the_turn, weight);
}

void PrioritizedReplicaStore::SetPlaces(uint64_t begin, uint64_t end, double weight) {
  uint64_t first = leaves_ + begin, last = leaves_ + end - 1;
  std::fill(&sums_[first], &sums_[last] + 1, weight);
  while (first > 1) {
    first /= 2;
    last /= 2;
    for (uint64_t i = first; i <= last; ++i) sums_[i] = sums_[2 * i] + sums_[2 * i + 1];
  }
}

void PrioritizedReplicaStore::Draw(uint64_t seed, absl::Span<uint64_t> numbers,
                                   absl::Span<float> probabilities) const {
  const uint64_t tail = replica_.tail(), capacity = shape().capacity;
  uint64_t random = seed;
  for (size_t i = 0; i < numbers.size(); ++i) {
    double below = static_cast<double>(NextRandom(random) >> 11) * 0x1p-53 * sums_[1];
    uint64_t node = 1;
    while (node < leaves_) {
      node *= 2;
      // Rounding must not lead to where there is nothing.
      if (below < sums_[node] || sums_[node + 1] == 0) continue;
      below -= sums_[node++];
    }
    const uint64_t place = node - leaves_;
    numbers[i] = tail + (place + capacity - tail % capacity) % capacity;
    probabilities[i] = static_cast<float>(sums_[node] / sums_[1]);
  }
}

void PrioritizedReplicaStore::SetPriorities(absl::Span<const uint64_t> numbers,
                                            absl::Span<const float> priorities) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] < replica_.tail() || numbers[i] >= replica_.head()) continue;
    max_priority_ = std::max(max_priority_, priorities[i]);
    SetNumbers(numbers[i], numbers[i] + 1, WeightOf(priorities[i]));
  }
}

}  // namespace troupe
