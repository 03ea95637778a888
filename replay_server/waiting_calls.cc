#include "replay_server/waiting_calls.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace troupe {
namespace {

// A learner may ask for counts to know how far a shard is.
bool LacksWindows(const SampleQuery& query) {
  return query.num_windows > 0 || query.lacks_windows > 0;
}

std::string DescribeWaiters(const std::list<WaiterPtr>& waiters, absl::string_view who,
                            absl::string_view why) {
  auto first = WaitingCalls::Clock::time_point::max();
  for (const WaiterPtr& waiter : waiters) first = std::min(first, *waiter->since);
  const absl::Duration waited = absl::FromChrono(WaitingCalls::Clock::now() - first);
  return absl::StrCat(waiters.size(), " ", who, ", the first for ",
                      absl::FormatDuration(absl::Floor(waited, absl::Milliseconds(1))), ": ", why);
}

WaitTimes TimesOf(const std::list<WaiterPtr>& waiters, const WaitClock& clock) {
  const auto now = WaitingCalls::Clock::now();
  WaitTimes times = {.calls = waiters.size(), .total = clock.total(now)};
  for (const WaiterPtr& waiter : waiters) {
    times.longest = std::max<std::chrono::duration<double>>(times.longest, now - *waiter->since);
  }
  return times;
}

}  // namespace

Admission WaitingCalls::AdmitInTurn(const WaiterPtr& writer, Clock::time_point now) {
  writer->since.reset();
  if (turns_.IsWriters(now)) return Admission::kAdmitted;
  awaiting_turn_.push_back(writer);
  return Admission::kNotItsTurn;
}

void WaitingCalls::HoldBack(const WaiterPtr& writer, Clock::time_point now) {
  if (!writer->since.has_value()) writer->since = now;
  writers_.push_back(writer);
  writers_clock_.Start(now);
}

void WaitingCalls::AddSampler(const SampleQuery& query, const WaiterPtr& sampler,
                              Clock::time_point now) {
  sampler->query = query;
  if (!sampler->since.has_value()) sampler->since = now;
  samplers_.push_back(sampler);
  if (LacksWindows(query)) samplers_clock_.Start(now);
}

void WaitingCalls::Forget(const WaiterPtr& waiter) {
  writers_.remove(waiter);
  awaiting_turn_.remove(waiter);
  samplers_.remove(waiter);
  StopIdleClocks();
}

void WaitingCalls::NoteWindows(uint64_t bytes, Clock::time_point now) {
  turns_.NoteWindows(bytes, now);
  if (turns_.IsWriters(now)) WakeAll(&awaiting_turn_);
}

void WaitingCalls::WakeHeldBack() {
  WakeAll(&writers_);
  writers_clock_.Stop();
}

void WaitingCalls::WakeAll(std::list<WaiterPtr>* waiters) {
  for (const WaiterPtr& waiter : *waiters) scheduler_->Post(waiter->wake);
  waiters->clear();
}

void WaitingCalls::WakeSamplers(absl::FunctionRef<bool(const SampleQuery&)> admitted) {
  samplers_.remove_if([&](const WaiterPtr& sampler) {
    if (!admitted(sampler->query)) return false;
    scheduler_->Post(sampler->wake);
    return true;
  });
  StopIdleClocks();
}

void WaitingCalls::StopIdleClocks() {
  if (writers_.empty()) writers_clock_.Stop();
  if (!AnySampler(LacksWindows)) samplers_clock_.Stop();
}

bool WaitingCalls::AnySampler(absl::FunctionRef<bool(const SampleQuery&)> condition) const {
  return std::any_of(samplers_.begin(), samplers_.end(),
                     [&](const WaiterPtr& sampler) { return condition(sampler->query); });
}

std::string WaitingCalls::DescribeHeldBack(absl::string_view why) const {
  return writers_.empty() ? "" : DescribeWaiters(writers_, "writing", why);
}

std::list<WaiterPtr> WaitingCalls::Lacking() const {
  std::list<WaiterPtr> lacking;
  for (const WaiterPtr& sampler : samplers_) {
    if (!LacksWindows(sampler->query)) continue;
    sampler->query.num_windows > 0 ? lacking.push_front(sampler) : lacking.push_back(sampler);
  }
  return lacking;
}

std::string WaitingCalls::DescribeSamplers(
    absl::FunctionRef<std::string(const SampleQuery&)> why) const {
  const std::list<WaiterPtr> lacking = Lacking();
  return lacking.empty() ? "" : DescribeWaiters(lacking, "sampling", why(lacking.front()->query));
}

WaitTimes WaitingCalls::HeldBack() const { return TimesOf(writers_, writers_clock_); }

WaitTimes WaitingCalls::Samplers() const { return TimesOf(Lacking(), samplers_clock_); }

std::optional<SampleQuery> WaitingCalls::FirstLacking() const {
  const std::list<WaiterPtr> lacking = Lacking();
  if (lacking.empty()) return std::nullopt;
  return lacking.front()->query;
}

}  // namespace troupe
