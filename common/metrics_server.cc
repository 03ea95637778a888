#include "common/metrics_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

constexpr size_t kMaxRequestBytes = 16384;
// A peer that is slower than this to ask or to read is dropped: the next one waits for it.
constexpr timeval kPeerTimeout = {.tv_sec = 2, .tv_usec = 0};
constexpr int kBacklog = 16;

// A listening socket, or -1 with errno.
int Listen(const addrinfo& address) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, kBacklog) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int BoundPort(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return -1;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

// What came before the empty line that ends a request; empty if the peer did not finish.
std::string ReadRequest(int connection) {
  std::string request;
  char buffer[1024];
  while (request.size() < kMaxRequestBytes) {
    const ssize_t size = TEMP_FAILURE_RETRY(recv(connection, buffer, sizeof(buffer), 0));
    if (size <= 0) return "";
    request.append(buffer, size);
    if (absl::StrContains(request, "\r\n\r\n")) return request;
  }
  return "";
}

void WriteAll(int connection, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t size =
        TEMP_FAILURE_RETRY(send(connection, text.data(), text.size(), MSG_NOSIGNAL));
    if (size <= 0) return;
    text.remove_prefix(size);
  }
}

std::string Response(absl::string_view status, absl::string_view type, absl::string_view body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(),
                      "\r\nAllow: GET\r\nConnection: close\r\n\r\n", body);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& host, int port, std::function<std::string()> text) {
  const std::string what = absl::StrCat("cannot serve metrics on ", host, ":", port, ": ");
  addrinfo hints = {};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* address = nullptr;
  const int resolved = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &address);
  if (resolved != 0) return absl::UnavailableError(absl::StrCat(what, gai_strerror(resolved)));
  const int listener = Listen(*address);
  const int error = errno;
  freeaddrinfo(address);
  if (listener < 0) return absl::UnavailableError(absl::StrCat(what, strerror(error)));
  const int wake = eventfd(0, EFD_CLOEXEC);
  if (wake < 0) {
    close(listener);
    return absl::UnavailableError(absl::StrCat(what, "no eventfd: ", strerror(errno)));
  }
  return std::unique_ptr<MetricsServer>(
      new MetricsServer(listener, wake, BoundPort(listener), std::move(text)));
}

MetricsServer::MetricsServer(int listener, int wake, int port, std::function<std::string()> text)
    : listener_(listener), wake_(wake), port_(port), text_(std::move(text)) {
  thread_ = std::thread([this] { Serve(); });
}

MetricsServer::~MetricsServer() {
  eventfd_write(wake_, 1);
  thread_.join();
  close(listener_);
  close(wake_);
}

void MetricsServer::Serve() {
  pollfd fds[] = {{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
  while (true) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    if ((fds[0].revents & POLLIN) == 0) continue;
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    Answer(connection);
    close(connection);
  }
}

void MetricsServer::Answer(int connection) const {
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &kPeerTimeout, sizeof(kPeerTimeout));
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &kPeerTimeout, sizeof(kPeerTimeout));
  const std::string request = ReadRequest(connection);
  if (request.empty()) return;
  if (absl::StartsWith(request, "GET /metrics ") || absl::StartsWith(request, "GET /metrics?")) {
    WriteAll(connection, Response("200 OK", "text/plain; version=0.0.4; charset=utf-8", text_()));
  } else if (absl::StartsWith(request, "GET ")) {
    WriteAll(connection, Response("404 Not Found", "text/plain", "only GET /metrics is here\n"));
  } else {
    WriteAll(connection, Response("405 Method Not Allowed", "text/plain",
                                  "metrics can be read, and nothing else\n"));
  }
  // Closing while unread bytes lie here would reset the connection under the answer.
  shutdown(connection, SHUT_WR);
}

}  // namespace troupe
