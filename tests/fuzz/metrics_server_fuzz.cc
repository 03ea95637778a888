// Requests as anybody may send them to a metrics port, over a real connection: the answer is well
// formed or there is none, the metrics go to GET /metrics only, and the server goes on.
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "common/metrics_server.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

constexpr char kMetrics[] = "troupe_up 1\n";
// The server reads this much at a time; what lies behind is unread when it closes, and the
// kernel may then drop the answer.
constexpr size_t kOneReadBytes = 1024;

// To a network of this process alone, if it may have one: where the kernel tracks connections, as
// Docker makes it do, some hundred thousand in two minutes are too many for it.
void LeaveNetwork() {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return;
  ifreq loopback = {};
  strcpy(loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  Require(ioctl(fd, SIOCSIFFLAGS, &loopback) == 0, "no loopback: ", strerror(errno));
  close(fd);
}

// libFuzzer's clock interrupts; a connect() that was goes on by itself.
int ErrorOfConnect(int fd) {
  pollfd connecting = {.fd = fd, .events = POLLOUT, .revents = 0};
  if (TEMP_FAILURE_RETRY(poll(&connecting, 1, -1)) < 0) return errno;
  int error = 0;
  socklen_t size = sizeof(error);
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Require(fd >= 0, "no socket");
  // Each address of ours has ports for some ten thousand connections a minute only.
  static uint32_t connections = 0;
  sockaddr_in source = {};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + connections++ / 1024 % 65536);
  Require(bind(fd, reinterpret_cast<sockaddr*>(&source), sizeof(source)) == 0, "no port");
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int error = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
  if (error == EINTR) error = ErrorOfConnect(fd);
  Require(error == 0, "the server does not take connections any more: ", strerror(error));
  return fd;
}

std::string Ask(int port, absl::string_view request) {
  const int fd = Connect(port);
  if (!request.empty()) {
    (void)TEMP_FAILURE_RETRY(send(fd, request.data(), request.size(), MSG_NOSIGNAL));
  }
  shutdown(fd, SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = TEMP_FAILURE_RETRY(recv(fd, buffer, sizeof(buffer), 0))) > 0;) {
    answer.append(buffer, n);
  }
  close(fd);
  return answer;
}

void TestOne(absl::string_view request) {
  static const std::unique_ptr<MetricsServer> server =
      MetricsServer::Start("127.0.0.1", 0, [] { return kMetrics; }).value();
  const std::string answer = Ask(server->port(), request);
  const bool has_metrics = absl::EndsWith(answer, kMetrics);
  const bool asks =
      absl::StartsWith(request, "GET /metrics ") || absl::StartsWith(request, "GET /metrics?");
  Require(answer.empty() || absl::StartsWith(answer, "HTTP/1.1 "), "no HTTP: ", answer);
  Require(asks || !has_metrics, "metrics for another request");
  if (request.size() > kOneReadBytes) return;
  const bool whole = absl::StrContains(request, "\r\n\r\n");
  Require(answer.empty() != whole, "a whole request without answer, or half of one with");
  Require(has_metrics == (asks && whole), "no metrics: ", answer);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  troupe::LeaveNetwork();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
