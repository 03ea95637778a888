#ifndef TROUPE_COMMON_METRICS_H_
#define TROUPE_COMMON_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/metrics_server.h"

namespace troupe {

using Labels = prometheus::Labels;

// The metrics of one process, served to Prometheus on /metrics.
//
// Thread-safe; the objects it returns are too, live as long as it does, and cost an atomic add (a
// histogram: one uncontended lock).  Add every metric with every label set at start: none comes or
// goes later.  Names are whole ("troupe_replay_rows"), in base units, `_total` on counters; an
// ill-formed or repeated one is a bug and aborts.
//
// `troupe_build_info` and what Prometheus' own clients say of their process (start, CPU time,
// memory, descriptors) are there from the beginning.
class Metrics final {
 public:
  // `program` such as "troupe-actor".
  explicit Metrics(const std::string& program);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  prometheus::Counter& AddCounter(const std::string& name, const std::string& help,
                                  const Labels& labels = {});
  prometheus::Gauge& AddGauge(const std::string& name, const std::string& help,
                              const Labels& labels = {});
  // `bounds`: upper bounds of the buckets, ascending.
  prometheus::Histogram& AddHistogram(const std::string& name, const std::string& help,
                                      const std::vector<double>& bounds, const Labels& labels = {});

  // Metrics that are read when Prometheus asks.  `read` is called from a thread of the exposition
  // until StopServing has returned.
  void AddSampledCounter(const std::string& name, const std::string& help,
                         std::function<double()> read, const Labels& labels = {});
  void AddSampledGauge(const std::string& name, const std::string& help,
                       std::function<double()> read, const Labels& labels = {});

  // Calls `prepare` before sampled metrics are read, each time, so that they may share what it has
  // gathered.  One scrape is answered at a time.
  void BeforeSampling(std::function<void()> prepare);

  // Adds room on the disk of `directory` as `troupe_disk_free_bytes` and `troupe_disk_size_bytes`.
  // Once a process.
  void AddDisk(const std::string& directory);

  // Serves /metrics on `host`:`port`, port 0: any free one.  Returns the port.
  // UNAVAILABLE names an address that cannot be opened.
  absl::StatusOr<int> Serve(const std::string& host, int port);
  void StopServing();

  // What /metrics answers.
  std::string Text() const;

 private:
  class Sampled;

  void AddProcess();

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::shared_ptr<Sampled> sampled_;
  std::unique_ptr<MetricsServer> server_;  // Serve and StopServing: one thread, the owner's
};

// 1 us to 10 s, three a decade. Unit: seconds.
std::vector<double> DurationBounds();

}  // namespace troupe

#endif  // TROUPE_COMMON_METRICS_H_
