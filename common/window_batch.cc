#include "common/window_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

namespace troupe {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

BatchBuffer::BatchBuffer(int64_t num_windows, int64_t window_bytes)
    : data(static_cast<uint8_t*>(::operator new(num_windows* window_bytes, kAlignment))),
      row_ids(num_windows),
      shards(num_windows),
      probabilities(num_windows) {}

BatchBuffer::~BatchBuffer() { ::operator delete(data, kAlignment); }

std::vector<float> ImportanceWeights(absl::Span<const float> probabilities, double beta) {
  // One that is too small for a float is not zero: it was drawn.
  const auto probability = [](float p) {
    return static_cast<double>(std::max(p, std::numeric_limits<float>::min()));
  };
  double least = 1;
  for (const float p : probabilities) least = std::min(least, probability(p));
  std::vector<float> weights(probabilities.size());
  std::transform(probabilities.begin(), probabilities.end(), weights.begin(), [&](float p) {
    return static_cast<float>(std::pow(least / probability(p), beta));
  });
  return weights;
}

void BatchRecycler::operator()(BatchBuffer* buffer) const {
  pool->GiveBack(std::unique_ptr<BatchBuffer>(buffer));
}

WindowBatch BatchPool::Take() {
  std::unique_ptr<BatchBuffer> buffer;
  {
    absl::MutexLock lock(&mu_);
    if (free_.empty()) {
      ++allocated_;
    } else {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (buffer == nullptr) {
    buffer = std::make_unique<BatchBuffer>(num_windows_, window_length_ * stride_bytes_);
  }
  return {.num_windows = num_windows_,
          .window_length = window_length_,
          .stride_bytes = stride_bytes_,
          .buffer = BatchBufferPtr(buffer.release(), BatchRecycler{shared_from_this()})};
}

void BatchPool::GiveBack(std::unique_ptr<BatchBuffer> buffer) {
  absl::MutexLock lock(&mu_);
  free_.push_back(std::move(buffer));
}

int64_t BatchPool::allocated() const {
  absl::MutexLock lock(&mu_);
  return allocated_;
}

}  // namespace troupe
