#include "replay_server/open_sockets.h"

#include <sys/stat.h>

#include "absl/time/clock.h"

namespace troupe {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Milliseconds(5);

// 0: not an open descriptor.
ino_t Inode(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

bool OpenSockets::Admit(int fd) {
  absl::MutexLock lock(&mu_);
  // One that had the same descriptor is closed.
  inodes_.erase(fd);
  // In a flood a look at all of them for each one more would take the machine.
  if (static_cast<int64_t>(inodes_.size()) >= most_ && absl::Now() >= next_look_) ForgetClosed();
  if (static_cast<int64_t>(inodes_.size()) >= most_) return false;
  inodes_[fd] = Inode(fd);
  return true;
}

int64_t OpenSockets::Count() {
  absl::MutexLock lock(&mu_);
  ForgetClosed();
  return static_cast<int64_t>(inodes_.size());
}

void OpenSockets::ForgetClosed() {
  next_look_ = absl::Now() + kBetweenLooks;
  absl::erase_if(inodes_, [](const auto& entry) { return Inode(entry.first) != entry.second; });
}

}  // namespace troupe
