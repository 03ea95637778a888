#include "tests/chaos/shard_kill/server_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace troupe {
namespace {

std::vector<std::string> Arguments(const ServerOptions& options, const std::string& port_file) {
  std::vector<std::string> arguments = {options.program,
                                        "--listen=127.0.0.1:0",
                                        absl::StrCat("--data_dir=", options.dir, "/data"),
                                        absl::StrCat("--port_file=", port_file),
                                        "--metrics_port=-1",
                                        "--log_level=warning"};
  for (const std::string& setting : {std::string("tables.name=replay"),
                                     absl::StrCat("tables.capacity_rows=", options.capacity_rows),
                                     std::string("learner.sac.random_steps=1"),
                                     std::string("tables.rate_limiter.samples_per_insert=0")}) {
    arguments.push_back("--set");
    arguments.push_back(setting);
  }
  return arguments;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const ServerOptions& options) {
  const std::string port_file = options.dir + "/port";
  unlink(port_file.c_str());
  const std::string log = options.dir + "/server.log";
  std::vector<std::string> arguments = Arguments(options, port_file);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "cannot fork");
  if (pid > 0) return std::unique_ptr<ServerProcess>(new ServerProcess(pid, port_file));
  // The child, which may only make system calls.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(fd, STDOUT_FILENO);
  dup2(fd, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

ServerProcess::ServerProcess(pid_t pid, std::string port_file)
    : pid_(pid),
      port_file_(std::move(port_file)),
      started_(absl::Now()),
      kill_at_(started_ + kLongestLife),
      killer_([this] { KillWhenDue(); }) {}

ServerProcess::~ServerProcess() {
  KillNow();
  killer_.join();
  waitpid(pid_, nullptr, 0);
}

int ServerProcess::AwaitPort() {
  for (;;) {
    int port = 0;
    if (std::ifstream(port_file_) >> port) return port;
    siginfo_t info = {};
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
    if (info.si_pid != 0) return 0;
    absl::SleepFor(absl::Microseconds(300));
  }
}

void ServerProcess::KillAt(absl::Time time) {
  absl::MutexLock lock(&mu_);
  kill_at_ = std::min(kill_at_, time);
}

void ServerProcess::KillWhenDue() {
  absl::MutexLock lock(&mu_);
  while (kill_at_ > absl::Now()) {
    const absl::Time seen = kill_at_;
    auto changed = [this, seen]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return ChangedSince(seen); };
    mu_.AwaitWithDeadline(absl::Condition(&changed), seen);
  }
  timed_out_ = kill_at_ == started_ + kLongestLife;
  killed_ = true;  // before anybody can notice
  kill(pid_, SIGKILL);
}

bool ServerProcess::killed() const {
  absl::MutexLock lock(&mu_);
  return killed_;
}

bool ServerProcess::timed_out() const {
  absl::MutexLock lock(&mu_);
  return timed_out_;
}

}  // namespace troupe
