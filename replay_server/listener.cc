#include "replay_server/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

constexpr int kShortagePauseMs = 100;
// Data that a peer does not acknowledge for this long ends its connection, as with gRPC's port.
constexpr unsigned kUserTimeoutMs = 10'000;

absl::Status CannotListen(const std::string& address, absl::string_view why) {
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address,
                   ": the port is in use, or the address is not this machine's (", why, ")"));
}

void Set(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof(value));
}

struct HostPort {
  std::string host;
  std::string port;
};

HostPort Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return {host, colon == std::string::npos ? "0" : address.substr(colon + 1)};
}

void SetPort(sockaddr* address, int port) {
  const auto in_order = htons(static_cast<uint16_t>(port));
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = in_order;
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = in_order;
  }
}

int PortOf(int fd) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return address.ss_family == AF_INET6 ? ntohs(reinterpret_cast<sockaddr_in6*>(&address)->sin6_port)
                                       : ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

// -1, and errno, if that cannot be.
int ListenOn(const sockaddr* address, socklen_t size) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    const bool any = std::memcmp(&v6->sin6_addr, &in6addr_any, sizeof(in6addr_any)) == 0;
    Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? 0 : 1);
  }
  if (bind(fd, address, size) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const std::string& address) {
  const HostPort where = Split(address);
  if (where.host != "0.0.0.0" && where.host != "::") return BindTo(where.host, where.port, address);
  // As with gRPC: both families, where the machine has both.
  auto both = BindTo("::", where.port, address);
  return both.ok() ? std::move(both) : BindTo("0.0.0.0", where.port, address);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::BindTo(const std::string& host,
                                                           const std::string& port,
                                                           const std::string& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return CannotListen(address, gai_strerror(error));
  const absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  std::unique_ptr<Listener> listener(new Listener);
  std::string why;
  for (addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (listener->port_ != 0) SetPort(each->ai_addr, listener->port_);
    const int fd = ListenOn(each->ai_addr, each->ai_addrlen);
    if (fd < 0) {
      why = strerror(errno);
      continue;
    }
    listener->sockets_.push_back(fd);
    listener->port_ = PortOf(fd);
  }
  if (listener->sockets_.empty()) return CannotListen(address, why);
  listener->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (listener->wake_ < 0) return absl::ErrnoToStatus(errno, "eventfd");
  return listener;
}

Listener::~Listener() {
  Stop();
  if (wake_ >= 0) close(wake_);
}

void Listener::Start(Take take) {
  thread_ = std::thread([this, take = std::move(take)] { Run(take); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
    thread_.join();
  }
  for (const int fd : sockets_) close(fd);
  sockets_.clear();
}

void Listener::Run(const Take& take) {
  std::vector<pollfd> all = {{.fd = wake_, .events = POLLIN, .revents = 0}};
  for (const int fd : sockets_) all.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  bool is_short = false;
  while (true) {
    // While something is lacking only the wake-up is waited for.
    poll(all.data(), is_short ? 1 : all.size(), is_short ? kShortagePauseMs : -1);
    if (all[0].revents != 0) return;
    is_short = !std::all_of(all.begin() + 1, all.end(), [&](const pollfd& each) {
      return (!is_short && each.revents == 0) || Accept(each.fd, take);
    });
    if (is_short) ++shortages_;
  }
}

bool Listener::Accept(int listener_fd, const Take& take) {
  const int fd = accept4(listener_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
  }
  Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  take(listener_fd, fd);
  return true;
}

}  // namespace troupe
