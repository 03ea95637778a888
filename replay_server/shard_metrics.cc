#include "replay_server/shard_metrics.h"

#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"
#include "proto/replay.pb.h"

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
    {"troupe_replay_follow_calls", "Follow calls that are open.", false,
     [](const Description& t) { return static_cast<double>(t.follow_calls()); }},
    {"troupe_replay_priorities_updated_total", "Windows that got a new priority.", true,
     [](const Description& t) { return static_cast<double>(t.priorities_updated()); }},
    {"troupe_replay_priorities_unknown_total", "New priorities of windows that are gone.", true,
     [](const Description& t) { return static_cast<double>(t.priorities_unknown()); }},
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

struct Side {
  const char* name;
  const proto::Waits& (*waits)(const Description& table);
};

constexpr Side kSides[] = {
    {"writers", [](const Description& t) -> const proto::Waits& { return t.writers(); }},
    {"samplers", [](const Description& t) -> const proto::Waits& { return t.samplers(); }}};

// What a shard says of itself, gathered once a scrape.  Used by the thread of the exposition alone.
using SharedReply = std::shared_ptr<const proto::DescribeReply>;

// Who waits, for what and for how long: a series for each side and reason, 1 where it holds.
void AddWaitMetrics(const SharedReply& reply, int table, const Labels& table_labels,
                    Metrics* metrics) {
  for (const Side& side : kSides) {
    Labels labels = table_labels;
    labels["who"] = side.name;
    const auto waits = [reply, table, &side] { return side.waits(reply->tables(table)); };
    metrics->AddSampledGauge(
        "troupe_replay_waiting_calls", "Calls that the limiter or a lack of windows keeps waiting.",
        [waits] { return static_cast<double>(waits().calls()); }, labels);
    metrics->AddSampledGauge(
        "troupe_replay_longest_wait_seconds", "How long the first of the waiting calls has waited.",
        [waits] { return waits().longest_seconds(); }, labels);
    metrics->AddSampledCounter(
        "troupe_replay_waited_seconds_total", "Time in which anybody waited.",
        [waits] { return waits().total_seconds(); }, labels);
    for (int reason = proto::FIRST_ACTOR; reason < proto::WaitReason_ARRAYSIZE; ++reason) {
      const auto as_reason = static_cast<proto::WaitReason>(reason);
      labels["for"] = absl::AsciiStrToLower(proto::WaitReason_Name(as_reason));
      metrics->AddSampledGauge(
          "troupe_replay_waits_for", "1 for what a side waits for, as writers for more samples.",
          [waits, as_reason] { return waits().reason() == as_reason ? 1.0 : 0.0; }, labels);
    }
  }
}

void AddTableMetrics(const SharedReply& reply, int index, const Labels& labels, Metrics* metrics) {
  for (const TableMetric& metric : kTableMetrics) {
    auto read = [reply, index, read = metric.read] { return read(reply->tables(index)); };
    if (metric.is_counter) {
      metrics->AddSampledCounter(metric.name, metric.help, read, labels);
    } else {
      metrics->AddSampledGauge(metric.name, metric.help, read, labels);
    }
  }
  AddWaitMetrics(reply, index, labels, metrics);
}

void AddMemoryMetrics(const Shard* shard, const SharedReply& reply, Metrics* metrics) {
  metrics->AddSampledGauge("troupe_replay_message_bytes", "What messages take in memory, at most.",
                           [reply] { return static_cast<double>(reply->message_bytes()); });
  metrics
      ->AddGauge("troupe_replay_message_budget_bytes", "What messages may take in memory together.")
      .Set(static_cast<double>(shard->budget().size_bytes()));
  metrics->AddSampledGauge("troupe_replay_messages_waiting",
                           "1 while replies wait for room in the budget of messages.",
                           [reply] { return reply->messages_wait_for().empty() ? 0.0 : 1.0; });
  metrics->AddSampledGauge("troupe_replay_calls", "Streaming calls that are open, of every kind.",
                           [shard] { return static_cast<double>(shard->calls().size()); });
  metrics->AddGauge("troupe_replay_max_calls", "Streaming calls that may be open.")
      .Set(shard->calls().max_calls());
}

}  // namespace

void AddShardMetrics(const Shard* shard, Metrics* metrics) {
  const auto reply = std::make_shared<proto::DescribeReply>(shard->Describe());
  metrics->BeforeSampling([shard, reply] { *reply = shard->Describe(); });
  metrics->AddDisk(shard->options().data_dir);
  metrics->AddSampledGauge("troupe_replay_draining",
                           "1 while writers are turned away (troupe drain).",
                           [shard] { return shard->draining() ? 1.0 : 0.0; });
  for (size_t i = 0; i < shard->tables().size(); ++i) {
    const TableOptions& options = shard->tables()[i]->options();
    const Labels labels = {{"table", options.name}};
    AddTableMetrics(reply, static_cast<int>(i), labels, metrics);
    AddLimiterMetrics(options.rate_limit, labels, metrics);
  }
  AddMemoryMetrics(shard, reply, metrics);
  metrics->AddSampledCounter(
      "troupe_replay_snapshot_write_failures_total", "Snapshots relayed, but not written to disk.",
      [shard] { return static_cast<double>(shard->snapshot_write_failures()); });
  metrics->AddSampledGauge("troupe_replay_snapshot_version", "Newest snapshot held; 0: none.",
                           [shard] { return static_cast<double>(shard->newest_version()); });
}

void AddConnectionMetrics(Server* server, Metrics* metrics) {
  metrics->AddSampledGauge("troupe_replay_connections", "Connections that are open.",
                           [server] { return static_cast<double>(server->connections()); });
  metrics->AddGauge("troupe_replay_connections_cap", "Connections that may be open at a time.")
      .Set(static_cast<double>(server->max_connections()));
  metrics->AddSampledCounter(
      "troupe_replay_connections_refused_total",
      "Connections for which there was no room: told so and closed, or closed.",
      [server] { return static_cast<double>(server->connections_refused()); });
}

ShardObservers::ShardObservers(Metrics* metrics)
    : append_seconds_(metrics->AddHistogram("troupe_replay_append_duration_seconds",
                                            "Time to store one message of rows.",
                                            DurationBounds())),
      sample_seconds_(metrics->AddHistogram("troupe_replay_sample_duration_seconds",
                                            "Time to draw and copy one batch of windows.",
                                            DurationBounds())),
      sync_seconds_(metrics->AddHistogram(
          "troupe_replay_sync_duration_seconds",
          "Time to bring a group of rows to the disk, with ack = DISK.", DurationBounds())),
      sync_failures_(metrics->AddCounter("troupe_replay_sync_failures_total",
                                         "Syncs that the disk had no space for, tried again.")) {
  const int first = static_cast<int>(absl::StatusCode::kCancelled) + 1;  // callers may leave
  for (int code = first; code < kCodes; ++code) {
    const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
    refusals_[code] =
        &metrics->AddCounter("troupe_replay_calls_refused_total",
                             "Calls that the shard refused or broke off.", {{"code", name}});
  }
}

void ShardObservers::Watch(ShardOptions* options) const {
  const auto observe = [](prometheus::Histogram& histogram) {
    return [&histogram](absl::Duration duration) {
      histogram.Observe(absl::ToDoubleSeconds(duration));
    };
  };
  options->observe_append = observe(append_seconds_);
  options->observe_sample = observe(sample_seconds_);
  options->disk_sync.observe = observe(sync_seconds_);
  options->disk_sync.warn = [this](const absl::Status& status) {
    sync_failures_.Increment();
    spdlog::warn("ACKS ARE WITHHELD, trying again each second: {}", status.ToString());
  };
  options->observe_refusal = [this](absl::StatusCode code) {
    const auto index = static_cast<size_t>(code);
    if (index < refusals_.size() && refusals_[index] != nullptr) refusals_[index]->Increment();
  };
}

}  // namespace troupe
