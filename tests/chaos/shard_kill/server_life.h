#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_LIFE_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_LIFE_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tests/integration/replay_server/server_process.h"

namespace troupe {

// One life of a replay server, which ends by kill -9: when KillAt()'s moment has come, by
// KillNow(), and at the latest after kLongestLife.  Thread-safe, AwaitPort() aside.
class ServerLife final {
 public:
  static constexpr absl::Duration kLongestLife = absl::Seconds(60);

  explicit ServerLife(const ServerOptions& options);
  // Kills it if nobody has, and waits until it is gone.
  ~ServerLife();

  absl::Time started() const { return started_; }
  // Waits until the shard serves; 0: it is gone.
  int AwaitPort() { return process_.port(); }
  void KillAt(absl::Time time);
  void KillNow() { KillAt(absl::InfinitePast()); }
  // Calls that fail from now on are no wonder.
  bool killed() const;
  // Nobody had chosen the moment at which it was killed.
  bool timed_out() const;

 private:
  void KillWhenDue();
  bool ChangedSince(absl::Time seen) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return kill_at_ != seen;
  }

  ServerProcess process_;
  const absl::Time started_;
  mutable absl::Mutex mu_;
  absl::Time kill_at_ ABSL_GUARDED_BY(mu_);
  bool killed_ ABSL_GUARDED_BY(mu_) = false;
  bool timed_out_ ABSL_GUARDED_BY(mu_) = false;
  std::thread killer_;  // the last to be made
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_LIFE_H_
