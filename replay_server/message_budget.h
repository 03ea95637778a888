#ifndef TROUPE_REPLAY_SERVER_MESSAGE_BUDGET_H_
#define TROUPE_REPLAY_SERVER_MESSAGE_BUDGET_H_

#include <cstdint>
#include <deque>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replay_server/scheduler.h"
#include "replay_server/waiter.h"

namespace troupe {

// The memory that messages of all calls may take together.  Thread-safe.
class MessageBudget final {
 public:
  MessageBudget(uint64_t size_bytes, Scheduler* scheduler)
      : size_bytes_(size_bytes), scheduler_(scheduler) {}

  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t taken_bytes() const ABSL_LOCKS_EXCLUDED(mu_);

  // False: there is not so much left.
  bool Take(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // False: `waiter` is woken when it may try again.  Who came first is woken first, and a newcomer
  // waits behind it.
  bool TakeOrWait(uint64_t bytes, const WaiterPtr& waiter) ABSL_LOCKS_EXCLUDED(mu_);
  void Return(uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // In words: who waits, since when and what would free it; empty: nobody.
  std::string WhyWaits() const ABSL_LOCKS_EXCLUDED(mu_);
  // A waiter that is given up.
  void Forget(const WaiterPtr& waiter) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Waiting {
    uint64_t bytes;
    WaiterPtr waiter;
    absl::Time since;
  };

  bool Fits(uint64_t bytes) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return bytes <= size_bytes_ - taken_bytes_;
  }
  void WakeFirst() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t size_bytes_;
  Scheduler* const scheduler_;
  mutable absl::Mutex mu_;
  uint64_t taken_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_MESSAGE_BUDGET_H_
