#ifndef TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_
#define TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

struct ServerOptions {
  std::string program = {};                   // empty: the troupe-replay-server of this build
  std::string data_dir = {};                  // the port file is beside it, data_dir.port
  uint64_t capacity_rows = 0;                 // of its table, `replay`, which nothing limits
  std::vector<std::string> flags = {};        // further ones
  std::vector<std::string> environment = {};  // "NAME=value", in addition to this process's
  std::string log_file = {};                  // appended to; empty: where this process's goes
};

// A running troupe-replay-server; killed at the end if it is still there, and when the thread that
// made it ends.
//
// Kill() may be called by any thread; the rest by one at a time.
class ServerProcess final {
 public:
  explicit ServerProcess(const ServerOptions& options);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Waits until it serves; 0: it has ended before.
  int port();
  bool HasEnded() const;
  // Sends the signal.  REQUIRES: no AwaitEnd() or Stop() has returned.
  void Kill(int signal_number) const;
  // Waits for its end, and returns its status as waitpid() does.
  int AwaitEnd();
  // Kill(), unless it has ended, and AwaitEnd().
  int Stop(int signal_number);

 private:
  const std::string port_file_;
  pid_t pid_ = -1;
  int port_ = 0;
  int status_ = 0;
  bool reaped_ = false;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_
