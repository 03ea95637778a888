#include "replay_server/message_budget.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace troupe {

uint64_t MessageBudget::taken_bytes() const {
  absl::MutexLock lock(&mu_);
  return taken_bytes_;
}

bool MessageBudget::Take(uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  if (!Fits(bytes)) return false;
  taken_bytes_ += bytes;
  return true;
}

bool MessageBudget::TakeOrWait(uint64_t bytes, const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  const auto place = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& each) { return each.waiter == waiter; });
  const bool is_first = waiting_.empty() || place == waiting_.begin();
  if (is_first && Fits(bytes)) {
    if (place != waiting_.end()) waiting_.pop_front();
    taken_bytes_ += bytes;
    WakeFirst();
    return true;
  }
  if (place == waiting_.end()) {
    waiting_.push_back({bytes, waiter, absl::Now()});
  } else {
    place->bytes = bytes;
  }
  return false;
}

void MessageBudget::Return(uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  taken_bytes_ -= bytes;
  WakeFirst();
}

std::string MessageBudget::WhyWaits() const {
  absl::MutexLock lock(&mu_);
  if (waiting_.empty()) return "";
  const Waiting& first = waiting_.front();
  const absl::Duration waited = absl::Floor(absl::Now() - first.since, absl::Milliseconds(1));
  return absl::StrCat(waiting_.size(), " replies, the first for ", absl::FormatDuration(waited),
                      ": replay_server.message_budget_bytes: ", first.bytes, " bytes wanted, ",
                      taken_bytes_, " of ", size_bytes_,
                      " taken; replies that were read and writers that are gone free it");
}

void MessageBudget::Forget(const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  std::erase_if(waiting_, [&](const Waiting& each) { return each.waiter == waiter; });
  WakeFirst();
}

void MessageBudget::WakeFirst() {
  if (!waiting_.empty() && Fits(waiting_.front().bytes)) {
    scheduler_->Post(waiting_.front().waiter->wake);
  }
}

}  // namespace troupe
