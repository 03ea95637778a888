#include "replay_server/sample_batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe {
namespace {

constexpr size_t kCacheLineBytes = 64;
// Of a segment's rows, asked of memory when it is added: they are copied only when all windows of
// the batch are chosen, and in a large table each of them lies somewhere else.
constexpr size_t kFetchedAhead = 512;

}  // namespace

PinnedRows& PinnedRows::operator=(PinnedRows&& other) noexcept {
  std::swap(segments_, other.segments_);
  std::swap(pins_, other.pins_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

void PinnedRows::Pin(std::atomic<uint32_t>* pin) {
  pin->fetch_add(1, std::memory_order_relaxed);
  pins_.push_back(pin);
}

void PinnedRows::AddRows(const uint8_t* rows, size_t size_bytes) {
  for (size_t at = 0; at < std::min(size_bytes, kFetchedAhead); at += kCacheLineBytes) {
    __builtin_prefetch(rows + at);
  }
  segments_.push_back({rows, size_bytes});
  size_bytes_ += size_bytes;
}

void PinnedRows::MoveTo(uint8_t* to) {
  for (const Segment& segment : segments_) {
    std::memcpy(to, segment.rows, segment.size_bytes);
    to += segment.size_bytes;
  }
  Unpin();
}

void PinnedRows::Unpin() {
  for (std::atomic<uint32_t>* pin : pins_) {
    if (pin->fetch_sub(1, std::memory_order_release) == 1) pin->notify_all();
  }
  pins_.clear();
  segments_.clear();
  size_bytes_ = 0;
}

void SampleBatch::Clear() {
  windows.Unpin();
  row_ids.clear();
  probabilities.clear();
  mass = 0;
  num_windows = 0;
  counts = {};
}

}  // namespace troupe
