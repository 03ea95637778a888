#ifndef TROUPE_COMMON_METRICS_SERVER_H_
#define TROUPE_COMMON_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace troupe {

// Answers HTTP GET /metrics with a text, one connection after the other, in a thread of its own.
// Nothing can be changed through it: other paths are 404, other methods 405, and no body is read.
//
// prometheus-cpp's own Exposer cannot be used: civetweb gives its threads 100 KiB of stack, and
// the thread-local storage of what Debian's LibTorch brings along does not fit in there.
class MetricsServer final {
 public:
  // Listens on `host`:`port`, port 0: any free one.  `text` is called in the server's thread until
  // the destructor has returned.  UNAVAILABLE names an address that cannot be opened.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& host, int port,
                                                              std::function<std::string()> text);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  int port() const { return port_; }

 private:
  MetricsServer(int listener, int wake, int port, std::function<std::string()> text);
  void Serve();
  void Answer(int connection) const;

  const int listener_;  // descriptors, owned
  const int wake_;      // an eventfd that becomes readable when the thread is to end
  const int port_;
  const std::function<std::string()> text_;
  std::thread thread_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_METRICS_SERVER_H_
