#ifndef TROUPE_REPLAY_SERVER_TURNS_H_
#define TROUPE_REPLAY_SERVER_TURNS_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace troupe {

// Keeps writers from taking the machine from samplers: while batches leave a table, no more bytes
// of rows come in than of windows go out, but for a burst.  Without it appends, being cheaper, win
// (samplers got 0.24 to 0.28 of their rate alone).  A training run, which samples a row many times,
// never meets it.
//
// Not thread-safe: guarded by its table's mutex.
class Turns final {
 public:
  using Clock = std::chrono::steady_clock;

  // No batch for so long: samplers do not keep up, or have gone, and writers need not wait.
  static constexpr Clock::duration kQuiet = std::chrono::milliseconds(10);

  void NoteRows(uint64_t bytes) {
    credit_bytes_ = std::max(-kBurstBytes, credit_bytes_ - static_cast<int64_t>(bytes));
  }
  void NoteWindows(uint64_t bytes, Clock::time_point now) {
    const bool was_quiet = now - last_batch_ > kQuiet;
    credit_bytes_ = was_quiet ? kBurstBytes
                              : std::min(kBurstBytes, credit_bytes_ + static_cast<int64_t>(bytes));
    last_batch_ = now;
  }
  bool IsWriters(Clock::time_point now) const {
    return credit_bytes_ >= 0 || now - last_batch_ > kQuiet;
  }

 private:
  static constexpr int64_t kBurstBytes = 1 << 20;

  int64_t credit_bytes_ = kBurstBytes;
  Clock::time_point last_batch_ = {};
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_TURNS_H_
