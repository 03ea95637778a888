#ifndef TROUPE_REPLAY_SERVER_OPEN_SOCKETS_H_
#define TROUPE_REPLAY_SERVER_OPEN_SOCKETS_H_

#include <sys/types.h>

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace troupe {

// How many of the sockets that were given away to somebody who closes them are still open.
//
// A descriptor is the socket that it was for as long as it has that socket's inode, which the
// kernel does not use again soon.  Thread-safe.
class OpenSockets final {
 public:
  explicit OpenSockets(int64_t most) : most_(most) {}

  // Notes `fd`, unless there are `most` open, as far as was known some milliseconds ago; then
  // false.
  bool Admit(int fd) ABSL_LOCKS_EXCLUDED(mu_);
  int64_t Count() ABSL_LOCKS_EXCLUDED(mu_);
  int64_t most() const { return most_; }

 private:
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t most_;
  absl::Mutex mu_;
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::flat_hash_map<int, ino_t> inodes_ ABSL_GUARDED_BY(mu_);  // of descriptors
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_OPEN_SOCKETS_H_
