#ifndef TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_
#define TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/random/bit_gen_ref.h"

namespace troupe {

// A window by the place of its first row, and the probability with which it was selected.
struct Selection {
  uint32_t block = 0;
  uint32_t slot = 0;
  float probability = 0;
};

// Chooses among the windows of a table.  Windows are named by the place of their first row: a
// block index below the number of blocks, and a bit of a 64-bit mask.
//
// Not thread-safe: guarded by its table's mutex.
class Selector {
 public:
  virtual ~Selector() = default;

  // REQUIRES: none of the windows is in the selector.
  virtual void Add(uint32_t block, uint64_t mask) = 0;
  // Windows that are not in the selector are ignored.
  virtual void Remove(uint32_t block, uint64_t mask) = 0;

  // The windows of one block that are in the selector.
  virtual uint64_t Mask(uint32_t block) const = 0;
  // Sum of the windows' weights.
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

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SELECTORS_INTERFACE_H_
