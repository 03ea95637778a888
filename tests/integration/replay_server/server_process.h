#ifndef TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_
#define TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/replay_server/rows.h"

extern char** environ;

namespace troupe {

// A server process; killed at the end if it is still there.
class ServerProcess final {
 public:
  // `more`: further arguments.
  ServerProcess(const TempDir& dir, uint64_t capacity_rows,
                const std::vector<std::string>& more = {}) {
    const std::string port_file = dir.File("port");
    unlink(port_file.c_str());
    std::vector<std::string> arguments = {TROUPE_REPLAY_SERVER,
                                          "--listen=127.0.0.1:0",
                                          "--data_dir=" + dir.File("data"),
                                          "--port_file=" + port_file,
                                          "--log_level=warning",
                                          "--set",
                                          "tables.name=replay",
                                          "--set",
                                          "tables.capacity_rows=" + std::to_string(capacity_rows),
                                          "--set",
                                          "learner.sac.random_steps=1",
                                          "--set",
                                          "tables.rate_limiter.samples_per_insert=0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, TROUPE_REPLAY_SERVER, nullptr, nullptr, argv.data(), environ), 0);
    while (port_ == 0 && waitpid(pid_, &status_, WNOHANG) == 0) {
      std::ifstream(port_file) >> port_;
      std::this_thread::yield();
    }
  }
  ~ServerProcess() {
    if (!gone_) Stop(SIGKILL);
  }

  int port() const { return port_; }
  // Sends the signal, waits for the end, returns the status.
  int Stop(int signal_number) {
    kill(pid_, signal_number);
    waitpid(pid_, &status_, 0);
    gone_ = true;
    return status_;
  }

 private:
  pid_t pid_ = 0;
  int port_ = 0;
  int status_ = 0;
  bool gone_ = false;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_INTEGRATION_REPLAY_SERVER_SERVER_PROCESS_H_
