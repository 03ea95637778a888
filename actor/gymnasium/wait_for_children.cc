#include "actor/gymnasium/wait_for_children.h"

#include <poll.h>

#include <algorithm>

#include "absl/time/clock.h"

namespace troupe {

void WaitForChildren(const std::vector<std::unique_ptr<EnvChild>>& children, absl::Time until) {
  std::vector<pollfd> sockets;
  for (const std::unique_ptr<EnvChild>& child : children) {
    until = std::min(until, child->deadline());
    if (child->socket() >= 0) sockets.push_back({.fd = child->socket(), .events = POLLIN});
  }
  const absl::Duration wait =
      std::clamp(until - absl::Now(), absl::ZeroDuration(), absl::Seconds(1));
  const timespec timeout = absl::ToTimespec(wait);
  ppoll(sockets.data(), sockets.size(), &timeout, nullptr);
}

}  // namespace troupe
