#ifndef TROUPE_COMMON_WINDOW_BATCH_H_
#define TROUPE_COMMON_WINDOW_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace troupe {

class BatchPool;

// The memory of one batch.
struct BatchBuffer {
  BatchBuffer(int64_t num_windows, int64_t window_bytes);
  ~BatchBuffer();
  BatchBuffer(const BatchBuffer&) = delete;
  BatchBuffer& operator=(const BatchBuffer&) = delete;

  uint8_t* const data;  // [num_windows * window_bytes], 64-byte aligned
  // One element a window.
  std::vector<uint64_t> row_ids;     // of the window's first row
  std::vector<int32_t> shards;       // where it came from: ShardDirectory's number
  std::vector<float> probabilities;  // with which one draw gives it, over the union of the shards
};

// Gives a buffer back to its pool instead of freeing it.
struct BatchRecycler {
  void operator()(BatchBuffer* buffer) const;
  std::shared_ptr<BatchPool> pool;
};
using BatchBufferPtr = std::unique_ptr<BatchBuffer, BatchRecycler>;

// One batch of windows: [num_windows, window_length, stride_bytes] of packed rows in one buffer.
// Movable; its memory goes back to the pool when it dies, and it may outlive its client.
struct WindowBatch {
  int64_t num_windows = 0;
  int64_t window_length = 0;  // rows
  int64_t stride_bytes = 0;   // of one row
  BatchBufferPtr buffer;

  int64_t window_bytes() const { return window_length * stride_bytes; }
  const uint8_t* data() const { return buffer->data; }
  const uint8_t* row(int64_t window, int64_t t) const {
    return data() + (window * window_length + t) * stride_bytes;
  }
};

// Importance-sampling weights of windows drawn with `probabilities`, scaled so that the largest of
// the batch is 1: w_i = (N P(i))^-beta / max_j w_j (Prioritized Experience Replay, arXiv
// 1511.05952, section 3.4).  N, the number of windows, cancels out.
std::vector<float> ImportanceWeights(absl::Span<const float> probabilities, double beta);

// Makes batches of one shape and uses their memory again.  Thread-safe.
class BatchPool final : public std::enable_shared_from_this<BatchPool> {
 public:
  BatchPool(int64_t num_windows, int64_t window_length, int64_t stride_bytes)
      : num_windows_(num_windows), window_length_(window_length), stride_bytes_(stride_bytes) {}

  // A batch with undefined contents.  REQUIRES: the pool is owned by a shared_ptr.
  WindowBatch Take() ABSL_LOCKS_EXCLUDED(mu_);
  void GiveBack(std::unique_ptr<BatchBuffer> buffer) ABSL_LOCKS_EXCLUDED(mu_);
  // Buffers ever allocated.
  int64_t allocated() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const int64_t num_windows_;
  const int64_t window_length_;
  const int64_t stride_bytes_;

  mutable absl::Mutex mu_;
  std::vector<std::unique_ptr<BatchBuffer>> free_ ABSL_GUARDED_BY(mu_);
  int64_t allocated_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_WINDOW_BATCH_H_
