#ifndef TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_
#define TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/random/bit_gen_ref.h"
#include "absl/types/span.h"

namespace troupe {

// A window by the place of its first row, and the probability with which it was selected.
struct Selection {
  uint32_t block = 0;
  uint32_t slot = 0;
  float probability = 0;
};

// A new priority of the window that starts at a place.
struct PriorityChange {
  uint32_t block = 0;
  uint32_t slot = 0;
  float priority = 0;
};

// Chooses among the windows of a table.  Windows are named by the place of their first row: a
// block index below the number of blocks, and a bit of a 64-bit mask.
//
// Not thread-safe: guarded by its table's mutex.
class Selector {
 public:
  virtual ~Selector() = default;

  // `priorities`: 64, by slot, those of the mask finite and not negative; empty if the selector
  // does not UsePriorities().  REQUIRES: none of the windows is in the selector.
  virtual void Add(uint32_t block, uint64_t mask, absl::Span<const float> priorities) = 0;
  // Windows that are not in the selector are ignored.
  virtual void Remove(uint32_t block, uint64_t mask) = 0;
  // REQUIRES: UsesPriorities(), and the windows are in the selector; of a window that is there
  // twice the last priority counts.
  virtual void SetPriorities(absl::Span<const PriorityChange> changes) {}
  // Do priorities change what is selected?
  virtual bool UsesPriorities() const { return false; }

  // The windows of one block that are in the selector.
  virtual uint64_t Mask(uint32_t block) const = 0;
  // Sum of the windows' weights: what a learner splits batches over shards by.  The number of
  // windows, but for the prioritized selector.
  virtual double Mass() const = 0;
  // Largest n that Select() accepts now.
  virtual int64_t MaxBatch() const = 0;
  // Appends n windows to `out`.  Nothing is removed.  REQUIRES: n <= MaxBatch().
  virtual void Select(int64_t n, absl::BitGenRef random, std::vector<Selection>* out) = 0;
};

// Every window with equal probability, with replacement: any n once there is a window.
std::unique_ptr<Selector> NewUniformSelector(uint32_t num_blocks);

// The n windows that were added first, oldest first, each once.
std::unique_ptr<Selector> NewFifoSelector(uint32_t num_blocks);
// The n windows that were added last, newest first, each once.
std::unique_ptr<Selector> NewLifoSelector(uint32_t num_blocks);

// Window i with probability priority_i^exponent / Mass(), with replacement, where Mass() is the sum
// of priority^exponent; a window of priority 0 never, whatever the exponent.
std::unique_ptr<Selector> NewPrioritizedSelector(uint32_t num_blocks, double exponent);

// The n windows of the largest or smallest priority, in that order, each once; among equal ones
// the one at the lower place first.
std::unique_ptr<Selector> NewMaxHeapSelector(uint32_t num_blocks);
std::unique_ptr<Selector> NewMinHeapSelector(uint32_t num_blocks);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_
