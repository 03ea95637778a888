#include "common/metrics.h"

#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/build_info.h"

namespace troupe {
namespace {

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return absl::ToDoubleSeconds(absl::DurationFromTimeval(usage.ru_utime) +
                               absl::DurationFromTimeval(usage.ru_stime));
}

// The number after `key` in /proc/self/status; NaN: not there.
double ProcessStatus(absl::string_view key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, key)) continue;
    return static_cast<double>(std::strtoll(line.c_str() + key.size(), nullptr, 10));
  }
  return std::nan("");
}

double OpenDescriptors() {
  std::error_code error;
  const std::filesystem::directory_iterator all("/proc/self/fd", error);
  if (error) return std::nan("");
  return static_cast<double>(std::distance(begin(all), end(all)) - 1);  // less that of `all`
}

double MaxDescriptors() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

// The metrics that are read at the moment of a scrape.  Thread-safe.
class Metrics::Sampled final : public prometheus::Collectable {
 public:
  void Add(prometheus::MetricType type, const std::string& name, const std::string& help,
           std::function<double()> read, const Labels& labels) {
    absl::MutexLock lock(&mu_);
    sources_.push_back({type, name, help, std::move(read), labels});
  }

  void Prepare(std::function<void()> prepare) {
    absl::MutexLock lock(&mu_);
    preparations_.push_back(std::move(prepare));
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families;
    absl::MutexLock lock(&mu_);
    for (const std::function<void()>& prepare : preparations_) prepare();
    for (const Source& source : sources_) {
      auto family = std::find_if(families.begin(), families.end(),
                                 [&](const auto& other) { return other.name == source.name; });
      if (family == families.end()) {
        family = families.insert(family, {source.name, source.help, source.type, {}});
      }
      family->metric.push_back(Read(source));
    }
    return families;
  }

 private:
  struct Source {
    prometheus::MetricType type;
    std::string name;
    std::string help;
    std::function<double()> read;
    Labels labels;
  };

  static prometheus::ClientMetric Read(const Source& source) {
    prometheus::ClientMetric metric;
    for (const auto& [name, value] : source.labels) metric.label.push_back({name, value});
    if (source.type == prometheus::MetricType::Counter) {
      metric.counter.value = source.read();
    } else {
      metric.gauge.value = source.read();
    }
    return metric;
  }

  mutable absl::Mutex mu_;
  std::vector<Source> sources_ ABSL_GUARDED_BY(mu_);
  std::vector<std::function<void()>> preparations_ ABSL_GUARDED_BY(mu_);
};

Metrics::Metrics(const std::string& program)
    : registry_(std::make_shared<prometheus::Registry>()), sampled_(std::make_shared<Sampled>()) {
  AddGauge("troupe_build_info", "Constant 1; the labels say what runs.",
           {{"program", program}, {"version", kVersion}, {"compiler", kCompiler}})
      .Set(1);
  AddProcess();
}

void Metrics::AddProcess() {
  AddGauge("process_start_time_seconds", "Start of the process, seconds since the Unix epoch.")
      .Set(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  AddSampledCounter("process_cpu_seconds_total", "CPU time of the process, user and system.",
                    CpuSeconds);
  AddSampledGauge("process_resident_memory_bytes",
                  "Memory that the process has, pages of mapped files included.",
                  [] { return 1024 * ProcessStatus("VmRSS:"); });
  AddSampledGauge("process_anonymous_memory_bytes",
                  "Memory that the process has for itself, without pages of files.",
                  [] { return 1024 * ProcessStatus("RssAnon:"); });
  AddSampledGauge("process_threads", "Threads of the process.",
                  [] { return ProcessStatus("Threads:"); });
  AddSampledGauge("process_open_fds", "File descriptors that are open.", OpenDescriptors);
  AddSampledGauge("process_max_fds", "File descriptors that may be open.", MaxDescriptors);
}

Metrics::~Metrics() { StopServing(); }

prometheus::Counter& Metrics::AddCounter(const std::string& name, const std::string& help,
                                         const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Gauge& Metrics::AddGauge(const std::string& name, const std::string& help,
                                     const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Histogram& Metrics::AddHistogram(const std::string& name, const std::string& help,
                                             const std::vector<double>& bounds,
                                             const Labels& labels) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(*registry_)
      .Add(labels, bounds);
}

void Metrics::AddSampledCounter(const std::string& name, const std::string& help,
                                std::function<double()> read, const Labels& labels) {
  sampled_->Add(prometheus::MetricType::Counter, name, help, std::move(read), labels);
}

void Metrics::AddSampledGauge(const std::string& name, const std::string& help,
                              std::function<double()> read, const Labels& labels) {
  sampled_->Add(prometheus::MetricType::Gauge, name, help, std::move(read), labels);
}

void Metrics::BeforeSampling(std::function<void()> prepare) {
  sampled_->Prepare(std::move(prepare));
}

void Metrics::AddDisk(const std::string& directory) {
  const auto add = [&](const char* name, const char* help, fsblkcnt_t statvfs::*blocks) {
    AddSampledGauge(name, help, [directory, blocks] {
      struct statvfs disk = {};
      if (statvfs(directory.c_str(), &disk) != 0) return std::nan("");
      return static_cast<double>(disk.*blocks) * static_cast<double>(disk.f_frsize);
    });
  };
  add("troupe_disk_free_bytes", "Room that is left on the disk of this process's files.",
      &statvfs::f_bavail);
  add("troupe_disk_size_bytes", "Size of the disk of this process's files.", &statvfs::f_blocks);
}

absl::StatusOr<int> Metrics::Serve(const std::string& host, int port) {
  auto server = MetricsServer::Start(host, port, [this] { return Text(); });
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  return server_->port();
}

void Metrics::StopServing() { server_.reset(); }

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (prometheus::MetricFamily& family : sampled_->Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

std::vector<double> DurationBounds() {
  return {1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3,
          5e-3, 1e-2, 2e-2, 5e-2, 0.1,  0.2,  0.5,  1,    2,    5,    10};
}

}  // namespace troupe
