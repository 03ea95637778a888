#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_PROCESS_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace troupe {

struct ServerOptions {
  std::string program;  // troupe-replay-server
  std::string dir;      // holds data/, port and server.log
  uint64_t capacity_rows = 0;
};

// One life of a troupe-replay-server, which ends by kill -9: when KillAt()'s moment has come, by
// KillNow(), and at the latest after kLongestLife.  Thread-safe.
class ServerProcess final {
 public:
  static constexpr absl::Duration kLongestLife = absl::Seconds(60);

  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const ServerOptions& options);
  // Kills it if nobody has, and waits until it is gone.
  ~ServerProcess();

  absl::Time started() const { return started_; }
  // Waits until the shard serves; 0: it is gone.
  int AwaitPort();
  void KillAt(absl::Time time);
  void KillNow() { KillAt(absl::InfinitePast()); }
  // Calls that fail from now on are no wonder.
  bool killed() const;
  // Nobody had chosen the moment at which it was killed.
  bool timed_out() const;

 private:
  ServerProcess(pid_t pid, std::string port_file);
  void KillWhenDue();
  bool ChangedSince(absl::Time seen) const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return kill_at_ != seen;
  }

  const pid_t pid_;
  const std::string port_file_;
  const absl::Time started_;
  mutable absl::Mutex mu_;
  absl::Time kill_at_ ABSL_GUARDED_BY(mu_);
  bool killed_ ABSL_GUARDED_BY(mu_) = false;
  bool timed_out_ ABSL_GUARDED_BY(mu_) = false;
  std::thread killer_;  // the last to be made
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_SERVER_PROCESS_H_
