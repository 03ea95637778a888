#ifndef TROUPE_COMMON_PROGRAM_H_
#define TROUPE_COMMON_PROGRAM_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "common/metrics.h"
#include "proto/config.pb.h"

namespace troupe {

// Exit codes of every program.
inline constexpr int kExitOk = 0;       // done, or stopped by SIGINT or SIGTERM
inline constexpr int kExitFailure = 1;  // tried and failed; stderr names the thing
inline constexpr int kExitUsage = 2;    // flags or configuration are wrong

// Says that the program is to end.  Thread-safe; never taken back.
class StopToken final {
 public:
  bool requested() const { return notification_.HasBeenNotified(); }
  void Wait() const { notification_.WaitForNotification(); }
  // True if a stop was requested within `timeout`.
  bool WaitFor(absl::Duration timeout) const {
    return notification_.WaitForNotificationWithTimeout(timeout);
  }
  void Request();

 private:
  std::atomic<bool> first_{true};  // atomic: whoever takes it notifies
  absl::Notification notification_;
};

// What the body of a program is given.
struct Program {
  std::string name;  // "troupe-actor"
  // --config with every --set applied and checked; the defaults if there is no --config.
  proto::Config config;
  // Requested by the first SIGINT or SIGTERM.  A second one ends the process at once.
  StopToken& stop;
  Metrics& metrics;
  std::shared_ptr<const Credentials> credentials;  // --tls_dir, --insecure
};

struct ProgramSpec {
  std::string name;
  // First paragraph of --help.
  std::string about;
  // What --health asks instead of calling the body; none: whether the process that serves metrics
  // on --metrics_host and --metrics_port answers.
  std::function<absl::Status(Program&)> check_health = nullptr;
};

// The whole of a `main`:
//   int main(int argc, char** argv) {
//     return troupe::RunProgram({"troupe-actor", "Steps ..."}, argc, argv, Run);
//   }
// Parses flags (those that the program defines by ABSL_FLAG in its main.cc and the common ones:
// --config, --set, --print_config, --health, --metrics_port, --log_level, --tls_dir and so on, each
// also from the environment, TROUPE_CONFIG; see --help),
// answers --help and --version, sets up logging, signals, the limit of open files and the
// exposition of metrics, and calls `body`.
//
// Returns the exit code: INVALID_ARGUMENT from the body is kExitUsage, any other error
// kExitFailure; its text goes to stderr.  Metrics are no longer served once the body has
// returned, but for sampled ones of objects in the body: stop serving before those die.
int RunProgram(const ProgramSpec& spec, int argc, char** argv,
               const std::function<absl::Status(Program&)>& body);

// Writes `text` to `path` atomically, such as a port for a waiting parent.  Errors name the path.
absl::Status WriteFileAtomically(const std::string& path, const std::string& text);

}  // namespace troupe

#endif  // TROUPE_COMMON_PROGRAM_H_
