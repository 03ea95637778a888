#ifndef TROUPE_TESTS_CHAOS_SERVER_PROCESS_H_
#define TROUPE_TESTS_CHAOS_SERVER_PROCESS_H_

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace troupe {

// A real server with ack = DISK on `data_dir`; killed at the end if it is still there.
// REQUIRES: TROUPE_REPLAY_SERVER is defined.
class ServerProcess final {
 public:
  // `environment`: "NAME=value", in addition.  Its log goes to `data_dir`.log.
  ServerProcess(const std::string& data_dir, uint64_t capacity_rows,
                const std::vector<std::string>& environment) {
    const std::string port_file = data_dir + ".port";
    unlink(port_file.c_str());
    std::vector<std::string> words = {"/usr/bin/env"};
    words.insert(words.end(), environment.begin(), environment.end());
    for (const std::string& word :
         {std::string(TROUPE_REPLAY_SERVER), std::string("--listen=127.0.0.1:0"),
          "--data_dir=" + data_dir, "--port_file=" + port_file, std::string("--log_level=warning"),
          std::string("--set=tables.name=replay"),
          "--set=tables.capacity_rows=" + std::to_string(capacity_rows),
          std::string("--set=replay_server.ack=DISK"),
          std::string("--set=learner.sac.random_steps=1"),
          std::string("--set=tables.rate_limiter.samples_per_insert=0")}) {
      words.push_back(word);
    }
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const std::string log = data_dir + ".log";
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    posix_spawn(&pid_, "/usr/bin/env", &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    while (port_ == 0 && !HasEnded()) {
      std::ifstream(port_file) >> port_;
      std::this_thread::yield();
    }
  }
  ~ServerProcess() {
    if (!gone_) Stop(SIGKILL);
  }

  int port() const { return port_; }  // 0: it ended before it served
  bool HasEnded() {
    if (!gone_ && waitpid(pid_, &status_, WNOHANG) == pid_) gone_ = true;
    return gone_;
  }
  // Sends the signal, waits for the end, returns the status.
  int Stop(int signal_number) {
    if (gone_) return status_;
    kill(pid_, signal_number);
    return AwaitEnd();
  }
  int AwaitEnd() {
    if (!gone_) waitpid(pid_, &status_, 0);
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

#endif  // TROUPE_TESTS_CHAOS_SERVER_PROCESS_H_
