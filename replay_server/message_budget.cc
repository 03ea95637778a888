#include "replay_server/message_budget.h"

#include <algorithm>

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
    waiting_.push_back({bytes, waiter});
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
