#ifndef TROUPE_TESTS_BENCH_REPLAY_MEASURE_H_
#define TROUPE_TESTS_BENCH_REPLAY_MEASURE_H_

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace troupe {

using Clock = std::chrono::steady_clock;

// What one load client has done.  The client alone writes; `units` is read by anybody at any time,
// the rest once the client is done.
struct Tally {
  std::atomic<int64_t> units{0};  // rows acked, windows received or messages; atomic: a plain count
  // Of every message acked, or request answered, while `measuring`.
  std::vector<float> latency_ms;
};

// Set while figures are taken: between warm-up and end.  Atomic: a plain flag.
using Measuring = std::atomic<bool>;

inline void NoteLatency(const Measuring& measuring, Clock::time_point since, Tally* tally) {
  if (!measuring.load(std::memory_order_relaxed)) return;
  tally->latency_ms.push_back(
      std::chrono::duration<float, std::milli>(Clock::now() - since).count());
}

// 0 if there are none.  Reorders `values`.
inline double Quantile(double q, std::vector<float>* values) {
  if (values->empty()) return 0;
  const auto at = values->begin() + static_cast<int64_t>(q * (values->size() - 1));
  std::nth_element(values->begin(), at, values->end());
  return *at;
}

// The machine and two processes at one moment. Unit: seconds of CPU since their start.
struct CpuTimes {
  Clock::time_point at;
  double client = 0;  // this process
  double server = 0;  // 0: not asked for
  double machine = 0;
  double steal = 0;
  double idle = 0;
};

// `server_pid` 0: none.
CpuTimes ReadCpuTimes(pid_t server_pid);

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_MEASURE_H_
