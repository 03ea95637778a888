#ifndef TROUPE_ACTOR_GYMNASIUM_CHILD_PROCESS_H_
#define TROUPE_ACTOR_GYMNASIUM_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace troupe {

// A Python process that runs env_child.py, and the socket to it, which carries datagrams.
//
// Not thread-safe.  It ends with its owner, however that ends.
class ChildProcess final {
 public:
  // `options`: the program's argument, a JSON object.  UNAVAILABLE names the interpreter that
  // cannot be started.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& python,
                                                             const std::string& options);
  // HangUp, and Kill after a second.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  int socket() const { return socket_; }

  // UNAVAILABLE: the process is gone.  `file`: a descriptor to pass along; -1: none.
  absl::Status Send(const void* data, size_t size, int file = -1);
  // What has come, without waiting for it; none: nothing.  UNAVAILABLE: the process is gone.
  absl::StatusOr<std::optional<std::string>> Receive();

  // Asks the process to end, without waiting for it.
  void HangUp();
  // Kills the process unless it ends by itself within `patience`, and says how it ended: "exited
  // with code 1", "ended by signal 11 (Segmentation fault)", or "killed".
  std::string Kill(absl::Duration patience);

 private:
  ChildProcess(pid_t process, int socket) : process_(process), socket_(socket) {}

  pid_t process_;  // 0: reaped
  const int socket_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_CHILD_PROCESS_H_
