#include "common/metrics.h"

#include <prometheus/text_serializer.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/build_info.h"

namespace troupe {

// The metrics that are read at the moment of a scrape.  Thread-safe.
class Metrics::Sampled final : public prometheus::Collectable {
 public:
  void Add(prometheus::MetricType type, const std::string& name, const std::string& help,
           std::function<double()> read, const Labels& labels) {
    absl::MutexLock lock(&mu_);
    sources_.push_back({type, name, help, std::move(read), labels});
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families;
    absl::MutexLock lock(&mu_);
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
};

Metrics::Metrics(const std::string& program)
    : registry_(std::make_shared<prometheus::Registry>()), sampled_(std::make_shared<Sampled>()) {
  AddGauge("troupe_build_info", "Constant 1; the labels say what runs.",
           {{"program", program}, {"version", kVersion}, {"compiler", kCompiler}})
      .Set(1);
  AddGauge("process_start_time_seconds", "Start of the process, seconds since the Unix epoch.")
      .Set(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
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
  return {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10};
}

}  // namespace troupe
