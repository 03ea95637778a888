#ifndef TROUPE_REPLAY_SERVER_LISTENER_H_
#define TROUPE_REPLAY_SERVER_LISTENER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace troupe {

// A port of ours, for gRPC's own never accepts again once the process was out of descriptors
// (CVE-2023-4785 in gRPC 1.51), and accepts without end until then.  This one waits and goes on.
//
// One thread makes, starts and stops it; connections are taken on a thread of its own.
class Listener final {
 public:
  // Owns the connection `fd` from then on.
  using Take = std::function<void(int listener_fd, int fd)>;

  // Listens on all addresses of host:port, port 0: any free one; 0.0.0.0 and [::] mean both.
  // UNAVAILABLE: the address cannot be had.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const std::string& address);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const { return port_; }
  void Start(Take take);
  // Closes the port; nothing is taken after it returns.
  void Stop();
  // How often a connection could not be accepted at once for want of descriptors or memory.
  uint64_t shortages() const { return shortages_; }

 private:
  Listener() = default;
  // `address`: for messages.
  static absl::StatusOr<std::unique_ptr<Listener>> BindTo(const std::string& host,
                                                          const std::string& port,
                                                          const std::string& address);

  void Run(const Take& take);
  // Accepts one connection; false: for want of something that others have to give back first.
  bool Accept(int listener_fd, const Take& take);

  std::vector<int> sockets_;
  int port_ = 0;
  int wake_ = -1;                       // an eventfd
  std::atomic<uint64_t> shortages_{0};  // atomic: read by metrics
  std::thread thread_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_LISTENER_H_
