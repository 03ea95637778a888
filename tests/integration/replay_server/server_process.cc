#include "tests/integration/replay_server/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace troupe {
namespace {

std::vector<std::string> CommandLine(const ServerOptions& options, const std::string& port_file) {
  std::vector<std::string> words;
  if (!options.environment.empty()) {
    words = options.environment;
    words.insert(words.begin(), "/usr/bin/env");
  }
  words.push_back(options.program.empty() ? TROUPE_REPLAY_SERVER : options.program);
  for (const std::string& flag :
       {std::string("--listen=127.0.0.1:0"), absl::StrCat("--data_dir=", options.data_dir),
        absl::StrCat("--port_file=", port_file), std::string("--log_level=warning"),
        std::string("--set=tables.name=replay"),
        absl::StrCat("--set=tables.capacity_rows=", options.capacity_rows),
        std::string("--set=learner.sac.random_steps=1"),
        std::string("--set=tables.rate_limiter.samples_per_insert=0")}) {
    words.push_back(flag);
  }
  words.insert(words.end(), options.flags.begin(), options.flags.end());
  return words;
}

// In a child, which may only make system calls.
[[noreturn]] void Become(char* const* argv, const char* log_file) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (*log_file != '\0') {
    const int fd = open(log_file, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
  }
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

ServerProcess::ServerProcess(const ServerOptions& options)
    : port_file_(options.data_dir + ".port") {
  unlink(port_file_.c_str());
  std::vector<std::string> words = CommandLine(options, port_file_);
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) Become(argv.data(), options.log_file.c_str());
  if (pid_ > 0) return;
  std::perror("cannot fork");
  std::abort();
}

ServerProcess::~ServerProcess() { Stop(SIGKILL); }

int ServerProcess::port() {
  while (port_ == 0 && !(std::ifstream(port_file_) >> port_) && !HasEnded()) {
    absl::SleepFor(absl::Microseconds(300));
  }
  return port_;
}

bool ServerProcess::HasEnded() const {
  if (reaped_) return true;
  siginfo_t info = {};
  waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
  return info.si_pid != 0;
}

void ServerProcess::Kill(int signal_number) const { kill(pid_, signal_number); }

int ServerProcess::AwaitEnd() {
  if (!reaped_) waitpid(pid_, &status_, 0);
  reaped_ = true;
  return status_;
}

int ServerProcess::Stop(int signal_number) {
  if (!reaped_) Kill(signal_number);
  return AwaitEnd();
}

}  // namespace troupe
