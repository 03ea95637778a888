#include "actor/gymnasium/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "actor/gymnasium/env_child_source.h"

extern char** environ;

namespace troupe {
namespace {

constexpr int kChildSocket = 3, kChildProgram = 4;  // as env_child.py knows them
constexpr size_t kMaxMessageBytes = 1 << 16;
constexpr absl::Duration kTimeToEnd = absl::Seconds(1);

// A file in memory that holds the program.
absl::StatusOr<int> ProgramFile() {
  const int file = memfd_create("troupe-env-child", 0);
  const ssize_t size = sizeof(kEnvChildSource) - 1;
  if (file < 0 || write(file, kEnvChildSource, size) != size) {
    if (file >= 0) close(file);
    return absl::UnavailableError(absl::StrCat("a file for env_child.py: ", strerror(errno)));
  }
  return file;
}

// A process group of its own, so that Ctrl-C reaches the actor alone; no signal blocked or ignored.
int Spawn(const std::string& python, const std::string& options, int socket, int program,
          pid_t* process) {
  // Above the numbers that they are to have.
  const int high_socket = fcntl(socket, F_DUPFD_CLOEXEC, 10);
  const int high_program = fcntl(program, F_DUPFD_CLOEXEC, 10);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, high_socket, kChildSocket);
  posix_spawn_file_actions_adddup2(&actions, high_program, kChildProgram);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string words[] = {python, absl::StrCat("/proc/self/fd/", kChildProgram), options};
  char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  const int error = posix_spawnp(process, python.c_str(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(high_socket);
  close(high_program);
  return error;
}

std::string Ending(int status) {
  if (WIFEXITED(status)) return absl::StrCat("exited with code ", WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  return absl::StrCat("ended by signal ", signal, " (", strsignal(signal), ")");
}

absl::Status Gone() {
  return absl::UnavailableError(absl::StrCat("the process is gone: ", strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::string& python,
                                                                  const std::string& options) {
  absl::StatusOr<int> program = ProgramFile();
  if (!program.ok()) return program.status();
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    const absl::Status status =
        absl::UnavailableError(absl::StrCat("a socket to Python: ", strerror(errno)));
    close(*program);
    return status;
  }
  pid_t process = 0;
  const int error = Spawn(python, options, sockets[1], *program, &process);
  close(*program);
  close(sockets[1]);
  if (error != 0) {
    close(sockets[0]);
    return absl::UnavailableError(absl::StrCat("cannot start ", python, ": ", strerror(error)));
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(process, sockets[0]));
}

ChildProcess::~ChildProcess() {
  HangUp();
  Kill(kTimeToEnd);
  close(socket_);
}

void ChildProcess::HangUp() { shutdown(socket_, SHUT_RDWR); }

absl::Status ChildProcess::Send(const void* data, size_t size, int file) {
  iovec part{const_cast<void*>(data), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (file >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &file, sizeof(int));
  }
  const ssize_t sent = sendmsg(socket_, &message, MSG_NOSIGNAL);
  return sent == static_cast<ssize_t>(size) ? absl::OkStatus() : Gone();
}

absl::StatusOr<std::optional<std::string>> ChildProcess::Receive() {
  char buffer[kMaxMessageBytes];
  const ssize_t size = recv(socket_, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (size > 0) return std::string(buffer, static_cast<size_t>(size));
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  return Gone();
}

std::string ChildProcess::Kill(absl::Duration patience) {
  if (process_ <= 0) return "killed";
  const absl::Time deadline = absl::Now() + patience;
  int status = 0;
  pid_t reaped = waitpid(process_, &status, WNOHANG);
  while (reaped == 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(2));
    reaped = waitpid(process_, &status, WNOHANG);
  }
  kill(-process_, SIGKILL);  // what it may have started, too
  if (reaped == 0) waitpid(process_, nullptr, 0);
  const bool by_itself = reaped == process_;
  process_ = 0;
  return by_itself ? Ending(status) : "killed";
}

}  // namespace troupe
