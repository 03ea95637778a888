#ifndef TROUPE_REPLAY_SERVER_WAITER_H_
#define TROUPE_REPLAY_SERVER_WAITER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

namespace troupe {

struct SampleQuery {
  uint64_t num_windows = 0;     // 0: only the counts ...
  uint64_t inserted_above = 0;  // ... once more windows than this were inserted here ...
  uint64_t lacks_windows = 0;   // ... for a learner that would draw so many, if it could
};

// A call that may have to wait.  `wake` is posted to the scheduler once for each time the call was
// told to wait, and must not keep the call alive.
struct Waiter {
  std::function<void()> wake;
  // The table's, under its mutex.
  SampleQuery query = {};
  std::optional<std::chrono::steady_clock::time_point> since = {};
};
using WaiterPtr = std::shared_ptr<Waiter>;

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_WAITER_H_
