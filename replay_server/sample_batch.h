#ifndef TROUPE_REPLAY_SERVER_SAMPLE_BATCH_H_
#define TROUPE_REPLAY_SERVER_SAMPLE_BATCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "replay_server/row_log_format.h"

namespace troupe {

// Rows in a log that may be read without its table's mutex, because their blocks are pinned: a
// block is not evicted while its counter is above 0.  Not thread-safe; movable.
class PinnedRows final {
 public:
  PinnedRows() = default;
  PinnedRows(PinnedRows&& other) noexcept = default;
  PinnedRows& operator=(PinnedRows&& other) noexcept;
  ~PinnedRows() { Unpin(); }

  size_t size_bytes() const { return size_bytes_; }

  // Under the table's mutex.  `rows` lie in the pinned block, or in younger ones.
  void Pin(std::atomic<uint32_t>* pin);
  void AddRows(const uint8_t* rows, size_t size_bytes);

  // Copies all rows in the order in which they were added, and unpins them.
  void MoveTo(uint8_t* to);
  void Unpin();

 private:
  struct Segment {
    const uint8_t* rows;
    size_t size_bytes;
  };

  std::vector<Segment> segments_;
  std::vector<std::atomic<uint32_t>*> pins_;
  size_t size_bytes_ = 0;
};

// The answer to one request of a sampler.
struct SampleBatch {
  PinnedRows windows;  // one after another
  std::vector<uint64_t> row_ids;
  std::vector<float> probabilities;
  double mass = 0;
  uint64_t num_windows = 0;  // that can be selected now
  LogCounts counts;

  // As it was made; what was allocated stays.
  void Clear();
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SAMPLE_BATCH_H_
