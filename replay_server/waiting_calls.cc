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
}

void WaitingCalls::AddSampler(const SampleQuery& query, const WaiterPtr& sampler,
                              Clock::time_point now) {
  sampler->query = query;
  if (!sampler->since.has_value()) sampler->since = now;
  samplers_.push_back(sampler);
}

void WaitingCalls::Forget(const WaiterPtr& waiter) {
  writers_.remove(waiter);
  awaiting_turn_.remove(waiter);
  samplers_.remove(waiter);
}

void WaitingCalls::NoteWindows(uint64_t bytes, Clock::time_point now) {
  turns_.NoteWindows(bytes, now);
  if (turns_.IsWriters(now)) WakeAll(&awaiting_turn_);
}

void WaitingCalls::WakeHeldBack() { WakeAll(&writers_); }

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
}

bool WaitingCalls::AnySampler(absl::FunctionRef<bool(const SampleQuery&)> condition) const {
  return std::any_of(samplers_.begin(), samplers_.end(),
                     [&](const WaiterPtr& sampler) { return condition(sampler->query); });
}

std::string WaitingCalls::DescribeHeldBack(absl::string_view why) const {
  return writers_.empty() ? "" : DescribeWaiters(writers_, "writing", why);
}

std::string WaitingCalls::DescribeSamplers(
    absl::FunctionRef<std::string(const SampleQuery&)> why) const {
  std::list<WaiterPtr> lacking;  // those that draw first
  for (const WaiterPtr& sampler : samplers_) {
    if (!LacksWindows(sampler->query)) continue;
    sampler->query.num_windows > 0 ? lacking.push_front(sampler) : lacking.push_back(sampler);
  }
  if (lacking.empty()) return "";
  return DescribeWaiters(lacking, "sampling", why(lacking.front()->query));
}

}  // namespace troupe
