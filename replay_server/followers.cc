#include "replay_server/followers.h"

namespace troupe {

absl::Status Followers::Add(const FollowerPtr& follower, const RowLog* log) {
  if (absl::Status status = follower->Place(log); !status.ok()) return status;
  followers_.push_back(follower);
  return absl::OkStatus();
}

bool Followers::TakeOrWait(const FollowerPtr& follower, const WaiterPtr& waiter, const RowLog* log,
                           std::atomic<uint32_t>* pins, FollowBatch* batch) {
  batch->Clear();
  if (log != nullptr) follower->Take(*log, pins, batch);
  if (!batch->runs.empty()) return true;
  waiting_.remove(waiter);
  waiting_.push_back(waiter);
  return false;
}

void Followers::Remove(const FollowerPtr& follower, const WaiterPtr& waiter) {
  waiting_.remove(waiter);
  followers_.remove(follower);
}

void Followers::NoteCommit(const RowLog& log, uint32_t block) {
  for (const FollowerPtr& follower : followers_) follower->NoteCommit(log.generation(block));
}

void Followers::NoteEviction(const RowLog& log, uint32_t block) {
  for (const FollowerPtr& follower : followers_) follower->NoteEviction(log, block);
}

void Followers::Wake() {
  for (const WaiterPtr& waiter : waiting_) scheduler_->Post(waiter->wake);
  waiting_.clear();
}

}  // namespace troupe
