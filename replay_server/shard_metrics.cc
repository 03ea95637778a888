#include "replay_server/shard_metrics.h"

#include <string>

namespace troupe {
namespace {

struct TableMetric {
  const char* name;
  const char* help;
  bool is_counter;
  double (*read)(const proto::TableDescription& table);
};

using Description = proto::TableDescription;

constexpr TableMetric kTableMetrics[] = {
    {"troupe_replay_rows", "Rows in the log.", false,
     [](const Description& t) { return static_cast<double>(t.rows()); }},
    {"troupe_replay_capacity_rows", "Rows that the log can hold.", false,
     [](const Description& t) { return static_cast<double>(t.capacity_rows()); }},
    {"troupe_replay_rows_appended_total", "Rows stored.", true,
     [](const Description& t) { return static_cast<double>(t.rows_appended()); }},
    {"troupe_replay_rows_evicted_total", "Rows that made room for newer ones.", true,
     [](const Description& t) { return static_cast<double>(t.rows_evicted()); }},
    {"troupe_replay_rows_duplicate_total", "Rows received again and ignored.", true,
     [](const Description& t) { return static_cast<double>(t.rows_duplicate()); }},
    {"troupe_replay_env_steps_total", "Rows stored that are not final.", true,
     [](const Description& t) { return static_cast<double>(t.counts().env_steps()); }},
    {"troupe_replay_windows_inserted_total", "Windows completed by inserts.", true,
     [](const Description& t) { return static_cast<double>(t.counts().inserted()); }},
    {"troupe_replay_windows_sampled_total", "Windows sent to learners.", true,
     [](const Description& t) { return static_cast<double>(t.counts().sampled()); }},
    {"troupe_replay_selector_mass", "Total mass of the selector.", false,
     [](const Description& t) { return t.mass(); }},
    {"troupe_replay_append_calls", "Append calls that are open.", false,
     [](const Description& t) { return static_cast<double>(t.append_calls()); }},
    {"troupe_replay_sample_calls", "Sample calls that are open.", false,
     [](const Description& t) { return static_cast<double>(t.sample_calls()); }},
    {"troupe_replay_writers_waiting", "1 while the rate limiter holds writers back.", false,
     [](const Description& t) { return t.writers_wait_for().empty() ? 0.0 : 1.0; }},
    {"troupe_replay_samplers_waiting", "1 while a sampler lacks windows.", false,
     [](const Description& t) { return t.samplers_wait_for().empty() ? 0.0 : 1.0; }},
    {"troupe_replay_corrupt_blocks_total", "Blocks that recovery dropped, in whole or part.", true,
     [](const Description& t) { return static_cast<double>(t.corrupt_blocks()); }},
    {"troupe_replay_version_lag_sum_total", "Sum over appended rows of how old their policy was.",
     true, [](const Description& t) { return static_cast<double>(t.version_lag_sum()); }},
    {"troupe_replay_version_lag_rows_total",
     "Rows that troupe_replay_version_lag_sum_total is over.", true,
     [](const Description& t) { return static_cast<double>(t.version_lag_rows()); }},
};

// What the limiter is set to, for alerts that hold the counts against it.
void AddLimiterMetrics(const RateLimit& limiter, const Labels& labels, Metrics* metrics) {
  metrics
      ->AddGauge("troupe_replay_samples_per_insert", "Samples a window is worth; 0: no limit.",
                 labels)
      .Set(limiter.samples_per_insert);
  metrics
      ->AddGauge("troupe_replay_min_size_windows",
                 "Windows, over all shards, before the first sample.", labels)
      .Set(static_cast<double>(limiter.min_size));
  metrics
      ->AddGauge("troupe_replay_slack_samples",
                 "By how much the samples of all shards may be off the ratio.", labels)
      .Set(limiter.slack);
}

}  // namespace

void AddShardMetrics(const Shard* shard, Metrics* metrics) {
  metrics->AddDisk(shard->options().data_dir);
  for (const std::unique_ptr<Table>& owned : shard->tables()) {
    const Table* table = owned.get();
    const Labels labels = {{"table", table->options().name}};
    for (const TableMetric& metric : kTableMetrics) {
      auto read = [table, read = metric.read] { return read(table->Describe()); };
      if (metric.is_counter) {
        metrics->AddSampledCounter(metric.name, metric.help, read, labels);
      } else {
        metrics->AddSampledGauge(metric.name, metric.help, read, labels);
      }
    }
    AddLimiterMetrics(table->options().rate_limit, labels, metrics);
  }
  metrics->AddSampledCounter(
      "troupe_replay_snapshot_write_failures_total", "Snapshots relayed, but not written to disk.",
      [shard] { return static_cast<double>(shard->snapshot_write_failures()); });
  metrics->AddSampledGauge("troupe_replay_snapshot_version", "Newest snapshot held; 0: none.",
                           [shard] { return static_cast<double>(shard->newest_version()); });
}

}  // namespace troupe
