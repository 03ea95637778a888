#ifndef TROUPE_REPLAY_SERVER_SCHEDULER_H_
#define TROUPE_REPLAY_SERVER_SCHEDULER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace troupe {

// One thread that runs what others post, in order, and timers.  It is where a call that waited is
// taken up again, so that no lock of the call that freed it is held meanwhile.
//
// Thread-safe.  Destruction drops what has not run; tasks hold what they touch by weak_ptr.
class Scheduler final {
 public:
  using Task = std::function<void()>;
  // Names a timer; 0 is none.
  using TimerId = uint64_t;

  Scheduler();
  ~Scheduler();

  void Post(Task task) ABSL_LOCKS_EXCLUDED(mu_);
  // Runs `task` once, `delay` from now by the monotonic clock.
  TimerId After(absl::Duration delay, Task task) ABSL_LOCKS_EXCLUDED(mu_);
  // A timer that is running or has run is left alone.
  void Cancel(TimerId id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Clock = std::chrono::steady_clock;

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // The next thing to run, waiting for it; an empty task: the end.
  Task Next() ABSL_LOCKS_EXCLUDED(mu_);

  absl::Mutex mu_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<Clock::time_point, TimerId>, Task> timers_ ABSL_GUARDED_BY(mu_);
  std::map<TimerId, Clock::time_point> due_ ABSL_GUARDED_BY(mu_);  // keys of timers_
  TimerId newest_timer_ ABSL_GUARDED_BY(mu_) = 0;
  std::thread thread_;  // last: it uses all above
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SCHEDULER_H_
