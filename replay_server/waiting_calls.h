#ifndef TROUPE_REPLAY_SERVER_WAITING_CALLS_H_
#define TROUPE_REPLAY_SERVER_WAITING_CALLS_H_

#include <chrono>
#include <cstdint>
#include <list>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "replay_server/scheduler.h"
#include "replay_server/turns.h"
#include "replay_server/waiter.h"

namespace troupe {

// May a writer write now?
enum class Admission {
  kAdmitted,
  kHeldBack,    // by the rate limiter, for as long as it takes
  kNotItsTurn,  // woken by the next batches; if none come, it asks again after Turns::kQuiet
};

// Adds up the time in which somebody waits.  Not thread-safe.
class WaitClock final {
 public:
  using Clock = std::chrono::steady_clock;

  void Start(Clock::time_point now) {
    if (!since_.has_value()) since_ = now;
  }
  void Stop() {
    if (since_.has_value()) total_ += Clock::now() - *since_;
    since_.reset();
  }
  Clock::duration total(Clock::time_point now) const {
    return since_.has_value() ? total_ + (now - *since_) : total_;
  }

 private:
  std::optional<Clock::time_point> since_;
  Clock::duration total_ = {};
};

// How many calls wait, how long the first of them has, and how long anybody ever had to.
struct WaitTimes {
  size_t calls = 0;
  std::chrono::duration<double> longest = {};
  std::chrono::duration<double> total = {};
};

// The writers and samplers that a table told to wait.  What they wait for the table knows: it says
// which of them are to be woken.
//
// Not thread-safe: guarded by its table's mutex.
class WaitingCalls final {
 public:
  using Clock = std::chrono::steady_clock;

  explicit WaitingCalls(Scheduler* scheduler) : scheduler_(scheduler) {}

  // A writer that the rate limiter admits: kAdmitted, or it was told to wait for its turn.
  Admission AdmitInTurn(const WaiterPtr& writer, Clock::time_point now);
  // A writer that it does not admit.
  void HoldBack(const WaiterPtr& writer, Clock::time_point now);
  void AddSampler(const SampleQuery& query, const WaiterPtr& sampler, Clock::time_point now);
  // A waiter that is given up.
  void Forget(const WaiterPtr& waiter);

  // Rows came in; windows went out, after which it may be writers' turn.
  void NoteRows(uint64_t bytes) { turns_.NoteRows(bytes); }
  void NoteWindows(uint64_t bytes, Clock::time_point now);

  bool holds_back_writers() const { return !writers_.empty(); }
  void WakeHeldBack();
  // Wakes the samplers whose query is one of these.
  void WakeSamplers(absl::FunctionRef<bool(const SampleQuery&)> admitted);
  bool AnySampler(absl::FunctionRef<bool(const SampleQuery&)> condition) const;

  // Who waits, since when and for what, in words; empty: nobody, but for samplers that lack no
  // windows.
  std::string DescribeHeldBack(absl::string_view why) const;
  std::string DescribeSamplers(absl::FunctionRef<std::string(const SampleQuery&)> why) const;

  // The same in numbers.
  WaitTimes HeldBack() const;
  WaitTimes Samplers() const;
  // What the first sampler wants that lacks windows; those that draw come first.
  std::optional<SampleQuery> FirstLacking() const;

 private:
  void WakeAll(std::list<WaiterPtr>* waiters);
  // Those that lack windows, those that draw first.
  std::list<WaiterPtr> Lacking() const;
  void StopIdleClocks();

  Scheduler* const scheduler_;
  Turns turns_;
  std::list<WaiterPtr> writers_;  // held back
  std::list<WaiterPtr> awaiting_turn_;
  std::list<WaiterPtr> samplers_;
  WaitClock writers_clock_;
  WaitClock samplers_clock_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_WAITING_CALLS_H_
