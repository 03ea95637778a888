#include "common/program.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/build_info.h"
#include "common/config.h"
#include "common/flags.h"
#include "common/logging.h"
#include "common/metrics_check.h"

ABSL_FLAG(std::string, config, "",
          "Configuration of the run, protobuf text format; see proto/config.proto.");
ABSL_FLAG(int, metrics_port, -1,
          "Port on which Prometheus metrics are served; 0: any free one, -1: not served.");
ABSL_FLAG(std::string, metrics_host, "127.0.0.1", "Address on which metrics are served.");
ABSL_FLAG(std::string, metrics_port_file, "", "File that the metrics port is written to.");
ABSL_FLAG(bool, metrics_optional, false,
          "A metrics port that cannot be opened is a warning, not an error.");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warning, error or off.");
ABSL_FLAG(bool, log_json, false, "Log lines are JSON.");
ABSL_FLAG(bool, print_config, false,
          "Check the configuration, print it with every --set applied, and exit.");
ABSL_FLAG(bool, health, false,
          "Ask the program that runs with the same flags whether it is well; exit 0 if it is.");
ABSL_FLAG(std::string, tls_dir, "",
          "Folder with ca.pem, cert.pem and key.pem, read again when they change: every connection "
          "is made with mutual TLS; see deploy/certs.");
ABSL_FLAG(bool, insecure, false, "Allow plaintext connections beyond this machine.");

namespace troupe {
namespace {

constexpr absl::Duration kHealthTimeout = absl::Seconds(5);

// Turns SIGINT and SIGTERM into a request to stop.  The signals are blocked in the thread that
// makes it, hence in all threads made after it; one thread waits for them.
class SignalWatcher final {
 public:
  explicit SignalWatcher(StopToken& stop) : stop_(stop) {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    signal(SIGPIPE, SIG_IGN);
    thread_ = std::thread([this] { Watch(); });
  }

  ~SignalWatcher() {
    done_ = true;
    pthread_kill(thread_.native_handle(), SIGINT);  // ends its wait
    thread_.join();
  }

 private:
  void Watch() {
    for (int signal_number = 0; sigwait(&signals_, &signal_number) == 0 && !done_;) {
      if (stop_.requested()) {
        std::fputs("stopped at once by a second signal\n", stderr);
        _exit(kExitFailure);
      }
      spdlog::info("stopping: {}", strsignal(signal_number));
      stop_.Request();
    }
  }

  StopToken& stop_;
  sigset_t signals_;
  std::atomic<bool> done_{false};  // atomic: set by the owner's thread
  std::thread thread_;
};

// A server out of descriptors would never accept again (CVE-2023-4785 in gRPC 1.51).
void RaiseOpenFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    spdlog::warn("cannot raise the limit of open files: {}", strerror(errno));
  }
}

absl::Status ServeMetrics(Metrics& metrics) {
  const int port = absl::GetFlag(FLAGS_metrics_port);
  if (port == -1) return absl::OkStatus();
  if (port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics_port=", port, ": must be -1 to 65535"));
  }
  const absl::StatusOr<int> bound = metrics.Serve(absl::GetFlag(FLAGS_metrics_host), port);
  if (!bound.ok()) {
    if (!absl::GetFlag(FLAGS_metrics_optional)) return bound.status();
    spdlog::warn("NO METRICS: {}", bound.status().ToString());
    return absl::OkStatus();
  }
  spdlog::info("metrics on port {}", *bound);
  const std::string path = absl::GetFlag(FLAGS_metrics_port_file);
  return path.empty() ? absl::OkStatus() : WriteFileAtomically(path, absl::StrCat(*bound, "\n"));
}

absl::Status CheckHealth(const ProgramSpec& spec, Program& program) {
  if (spec.check_health) return spec.check_health(program);
  return CheckMetrics(absl::GetFlag(FLAGS_metrics_host), absl::GetFlag(FLAGS_metrics_port),
                      kHealthTimeout);
}

absl::StatusOr<std::shared_ptr<const Credentials>> CredentialsFromFlags() {
  const std::string directory = absl::GetFlag(FLAGS_tls_dir);
  if (directory.empty()) return Credentials::Plaintext(absl::GetFlag(FLAGS_insecure));
  if (absl::GetFlag(FLAGS_insecure)) {
    return absl::InvalidArgumentError("--tls_dir and --insecure contradict each other");
  }
  return Credentials::MutualTls(directory);
}

absl::Status RunBody(const ProgramSpec& spec, const CommandLine& command_line,
                     const std::function<absl::Status(Program&)>& body) {
  absl::Status status =
      SetUpLogging(spec.name, absl::GetFlag(FLAGS_log_level), absl::GetFlag(FLAGS_log_json));
  if (!status.ok()) return status;
  StopToken stop;
  const SignalWatcher watcher(stop);
  RaiseOpenFileLimit();
  absl::StatusOr<proto::Config> config = LoadConfig(absl::GetFlag(FLAGS_config), command_line.sets);
  if (!config.ok()) return absl::InvalidArgumentError(config.status().message());
  if (absl::GetFlag(FLAGS_print_config)) {
    std::fputs(PrintConfig(*config).c_str(), stdout);
    return absl::OkStatus();
  }
  const auto credentials = CredentialsFromFlags();
  if (!credentials.ok()) return credentials.status();
  Metrics metrics(spec.name);
  Program program{spec.name, *std::move(config), stop, metrics, *credentials};
  if (absl::GetFlag(FLAGS_health)) return CheckHealth(spec, program);
  metrics.AddSampledGauge(
      "troupe_certificate_expiry_timestamp_seconds",
      "When the certificate of --tls_dir runs out, in Unix time; +Inf: there is none.",
      [credentials = *credentials] {
        return absl::ToDoubleSeconds(credentials->CertificateExpiry() - absl::UnixEpoch());
      });
  if (status = ServeMetrics(metrics); !status.ok()) return status;
  status = body(program);
  metrics.StopServing();
  return status;
}

int Fail(const ProgramSpec& spec, const absl::Status& status) {
  std::fprintf(stderr, "%s: %s\n", spec.name.c_str(), std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailure;
}

}  // namespace

void StopToken::Request() {
  if (first_.exchange(false)) notification_.Notify();
}

int RunProgram(const ProgramSpec& spec, int argc, char** argv,
               const std::function<absl::Status(Program&)>& body) {
#ifdef NDEBUG
  // Debian's Abseil keeps a graph of all locks, gRPC's among them, to find cycles.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  const absl::StatusOr<CommandLine> command_line =
      ParseFlags(absl::MakeConstSpan(argv, argc).subspan(1));
  if (!command_line.ok()) {
    const int code = Fail(spec, command_line.status());
    std::fprintf(stderr, "%s --help lists the flags\n", spec.name.c_str());
    return code;
  }
  if (command_line->help) {
    std::fputs(FlagsHelp(spec.name, spec.about).c_str(), stdout);
    return kExitOk;
  }
  if (command_line->version) {
    std::printf("%s %s\n", spec.name.c_str(), kVersion);
    return kExitOk;
  }
  try {
    const absl::Status status = RunBody(spec, *command_line, body);
    return status.ok() ? kExitOk : Fail(spec, status);
  } catch (const std::exception& error) {
    return Fail(spec, absl::InternalError(absl::StrCat("a bug: ", error.what())));
  }
}

absl::Status WriteFileAtomically(const std::string& path, const std::string& text) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary));
  }
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
    std::remove(temporary.c_str());
    return status;
  }
  return absl::OkStatus();
}

}  // namespace troupe
