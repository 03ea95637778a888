#include "common/metrics_check.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

constexpr absl::string_view kRequest = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
constexpr absl::string_view kWell = "HTTP/1.1 200 ";

// Sends the request and returns the first bytes of the answer; empty, with errno, if none came.
std::string Ask(int connection, const addrinfo& address) {
  if (connect(connection, address.ai_addr, address.ai_addrlen) != 0) return "";
  if (send(connection, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) < 0) return "";
  char answer[kWell.size()];
  const ssize_t size = recv(connection, answer, sizeof(answer), MSG_WAITALL);
  return size > 0 ? std::string(answer, size) : "";
}

}  // namespace

absl::Status CheckMetrics(const std::string& host, int port, absl::Duration timeout) {
  const std::string what = absl::StrCat("no metrics from ", host, ":", port, ": ");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* address = nullptr;
  const int resolved = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &address);
  if (resolved != 0) return absl::UnavailableError(absl::StrCat(what, gai_strerror(resolved)));
  const absl::Cleanup free_address = [address] { freeaddrinfo(address); };
  const int connection = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection < 0) return absl::UnavailableError(absl::StrCat(what, strerror(errno)));
  const absl::Cleanup close_connection = [connection] { close(connection); };
  // Sending's also bounds the time to connect.
  const timeval patience = absl::ToTimeval(timeout);
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  errno = 0;
  const std::string answer = Ask(connection, *address);
  if (answer == kWell) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(what, answer.empty() ? std::string(strerror(errno)) : answer));
}

}  // namespace troupe
