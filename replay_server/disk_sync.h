#ifndef TROUPE_REPLAY_SERVER_DISK_SYNC_H_
#define TROUPE_REPLAY_SERVER_DISK_SYNC_H_

#include <cstdint>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replay_server/scheduler.h"

namespace troupe {

struct DiskSyncOptions {
  // Tried again so long after the disk was full.
  absl::Duration retry_delay = absl::Seconds(1);
  // Told how long each sync took; may be empty.
  std::function<void(absl::Duration)> observe = {};
  // Told of each sync that failed for want of space and is tried again; may be empty.
  std::function<void(const absl::Status&)> warn = {};
  // Told once of a failure after which nothing may be acked any more.  It should end the process.
  std::function<void(const absl::Status&)> fail = {};
};

// Brings one log to the disk for all calls that wait for that: while one sync runs, the calls that
// the next one covers gather.
//
// Thread-safe; syncs on a thread of its own, on which all of DiskSyncOptions is called.
class DiskSync final {
 public:
  // The parts of a sync.  What was stored before `begin` returned is safe once `sync` was OK and
  // `end` is called.  `after_failure`: the sync before failed.  RESOURCE_EXHAUSTED: the disk is
  // full, the whole is tried again; any other error is for good.
  struct Steps {
    std::function<void()> begin;
    std::function<absl::Status(bool after_failure)> sync;
    std::function<absl::Status(bool after_failure)> end;
  };

  // `scheduler` outlives it and runs what waits.
  DiskSync(Steps steps, DiskSyncOptions options, Scheduler* scheduler);
  ~DiskSync();  // waits for the sync under way

  // Asks for a sync that begins after this call.  Returns its number; `wake` is posted once it has
  // ended.  A caller whose `last`, the number it was told before, is the same is not added again.
  uint64_t Request(uint64_t last, const std::function<void()>& wake) ABSL_LOCKS_EXCLUDED(mu_);
  // The number of the newest sync that has ended well; 0: none yet.
  uint64_t ended() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits until a sync is wanted and begins its number.  False: the end.
  bool BeginNext() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SyncOnce(bool after_failure);
  // True once it may be tried again; false: the end.
  bool AwaitRetry() ABSL_LOCKS_EXCLUDED(mu_);
  void Finish() ABSL_LOCKS_EXCLUDED(mu_);

  const Steps steps_;
  const DiskSyncOptions options_;
  Scheduler* const scheduler_;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t wanted_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t begun_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t ended_ ABSL_GUARDED_BY(mu_) = 0;
  // With the number of the sync that each waits for, ascending.
  std::vector<std::pair<uint64_t, std::function<void()>>> waiters_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all above
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_DISK_SYNC_H_
