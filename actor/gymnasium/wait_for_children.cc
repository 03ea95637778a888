#include "actor/gymnasium/wait_for_children.h"

#include <poll.h>

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"

namespace troupe {

void WaitForChildren(absl::Span<EnvChild* const> children, absl::Time until) {
  std::vector<pollfd> sockets(children.size());
  for (size_t i = 0; i < children.size(); ++i) {
    until = std::min(until, children[i]->deadline());
    sockets[i] = {.fd = children[i]->socket(), .events = POLLIN};  // -1 is passed over
  }
  const timespec timeout =
      absl::ToTimespec(std::clamp(until - absl::Now(), absl::ZeroDuration(), absl::Seconds(1)));
  if (ppoll(sockets.data(), sockets.size(), &timeout, nullptr) < 0) return;
  const absl::Time now = absl::Now();
  for (size_t i = 0; i < children.size(); ++i) {
    if (sockets[i].revents != 0 || now >= children[i]->deadline()) children[i]->Turn(now);
  }
}

}  // namespace troupe
