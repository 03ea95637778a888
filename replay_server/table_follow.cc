// The half of Table that sees every row once: followers.
#include "replay_server/table.h"

namespace troupe {

absl::Status Table::StartFollowing(const FollowerPtr& follower) {
  absl::MutexLock lock(&mu_);
  return followers_.Add(follower, log_.get());
}

bool Table::FollowOrWait(const FollowerPtr& follower, const WaiterPtr& waiter, FollowBatch* batch) {
  absl::MutexLock lock(&mu_);
  return followers_.TakeOrWait(follower, waiter, log_.get(), pins_.get(), batch);
}

void Table::StopFollowing(const FollowerPtr& follower, const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  followers_.Remove(follower, waiter);
}

}  // namespace troupe
