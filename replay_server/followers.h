#ifndef TROUPE_REPLAY_SERVER_FOLLOWERS_H_
#define TROUPE_REPLAY_SERVER_FOLLOWERS_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>

#include "absl/status/status.h"
#include "replay_server/follower.h"
#include "replay_server/row_log.h"
#include "replay_server/scheduler.h"
#include "replay_server/waiter.h"

namespace troupe {

using FollowerPtr = std::shared_ptr<Follower>;

// The followers of one table's log.  Not thread-safe: guarded by the table's mutex.
class Followers final {
 public:
  explicit Followers(Scheduler* scheduler) : scheduler_(scheduler) {}

  // A log that is not made yet is null.  FAILED_PRECONDITION: the position is none of this log.
  absl::Status Add(const FollowerPtr& follower, const RowLog* log);
  // True: `batch` holds the next rows, pinned by pins[block index]; false: there are none, and
  // `waiter` was told to wait.
  bool TakeOrWait(const FollowerPtr& follower, const WaiterPtr& waiter, const RowLog* log,
                  std::atomic<uint32_t>* pins, FollowBatch* batch);
  void Remove(const FollowerPtr& follower, const WaiterPtr& waiter);

  // Rows of a block were committed.
  void NoteCommit(const RowLog& log, uint32_t block);
  // A block is about to be evicted.
  void NoteEviction(const RowLog& log, uint32_t block);
  // Wakes those that wait.
  void Wake();

 private:
  Scheduler* const scheduler_;
  std::list<FollowerPtr> followers_;
  std::list<WaiterPtr> waiting_;  // of those that have everything
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_FOLLOWERS_H_
