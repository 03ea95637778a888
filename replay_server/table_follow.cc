// The half of Table that sees every row once: followers.
#include <algorithm>

#include "replay_server/table.h"

namespace troupe {

absl::Status Table::StartFollowing(const FollowerPtr& follower) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = follower->Place(log_.get()); !status.ok()) return status;
  followers_.push_back(follower);
  return absl::OkStatus();
}

bool Table::FollowOrWait(const FollowerPtr& follower, const WaiterPtr& waiter, FollowBatch* batch) {
  absl::MutexLock lock(&mu_);
  batch->Clear();
  if (log_ != nullptr) follower->Take(*log_, pins_.get(), batch);
  if (!batch->runs.empty()) return true;
  waiting_followers_.remove(waiter);
  waiting_followers_.push_back(waiter);
  return false;
}

void Table::StopFollowing(const FollowerPtr& follower, const WaiterPtr& waiter) {
  absl::MutexLock lock(&mu_);
  waiting_followers_.remove(waiter);
  followers_.remove(follower);
}

void Table::NoteCommit(uint32_t block) {
  for (const FollowerPtr& follower : followers_) follower->NoteCommit(log_->generation(block));
}

void Table::NoteEviction(uint32_t block) {
  for (const FollowerPtr& follower : followers_) follower->NoteEviction(*log_, block);
}

void Table::WakeFollowers() {
  for (const WaiterPtr& waiter : waiting_followers_) scheduler_->Post(waiter->wake);
  waiting_followers_.clear();
}

}  // namespace troupe
