#include "deploy/operator/status.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/operator/shards.h"

namespace troupe {
namespace {

double Rate(uint64_t before, uint64_t after, absl::Duration interval) {
  const double seconds = absl::ToDoubleSeconds(interval);
  return after > before && seconds > 0 ? static_cast<double>(after - before) / seconds : 0;
}

// The same table at the earlier moment; one that was not there had nothing.
proto::TableDescription Earlier(const ShardReports& reports, const std::string& name) {
  for (const proto::TableDescription& table : reports.before.tables()) {
    if (table.name() == name) return table;
  }
  return {};
}

std::vector<absl::Status> DescribeAll(const std::vector<ShardContact>& links,
                                      absl::Duration timeout, const StopToken& stop,
                                      std::vector<proto::DescribeReply>* replies) {
  replies->assign(links.size(), {});
  proto::DescribeRequest request;
  request.set_with_calls(true);
  return CallAll(links, "no status of", timeout, stop,
                 [&](size_t shard, grpc::ClientContext* context) {
                   return links[shard].stub->Describe(context, request, &(*replies)[shard]);
                 });
}

}  // namespace

void TableFigures::Add(const TableFigures& other) {
  rows += other.rows;
  capacity_rows += other.capacity_rows;
  env_steps += other.env_steps;
  inserted += other.inserted;
  sampled += other.sampled;
  steps_per_second += other.steps_per_second;
  sampled_per_second += other.sampled_per_second;
  lag_sum += other.lag_sum;
  lag_rows += other.lag_rows;
  writers += other.writers;
  samplers += other.samplers;
  followers += other.followers;
}

TableFigures FiguresOf(const ShardReports& reports, int table, absl::Duration interval) {
  const proto::TableDescription& now = reports.after.tables(table);
  const proto::TableDescription before = Earlier(reports, now.name());
  const bool has_news = now.version_lag_rows() > before.version_lag_rows();
  return {.rows = now.rows(),
          .capacity_rows = now.capacity_rows(),
          .env_steps = now.counts().env_steps(),
          .inserted = now.counts().inserted() + now.counts().preloaded(),
          .sampled = now.counts().sampled(),
          .steps_per_second = Rate(before.counts().env_steps(), now.counts().env_steps(), interval),
          .sampled_per_second = Rate(before.counts().sampled(), now.counts().sampled(), interval),
          .lag_sum = now.version_lag_sum() - (has_news ? before.version_lag_sum() : 0),
          .lag_rows = now.version_lag_rows() - (has_news ? before.version_lag_rows() : 0),
          .writers = now.append_calls(),
          .samplers = now.sample_calls(),
          .followers = now.follow_calls()};
}

TableFigures ClusterStatus::Sum() const {
  TableFigures sum;
  for (const ShardReports& shard : reports) {
    for (int i = 0; i < shard.after.tables_size(); ++i) sum.Add(FiguresOf(shard, i, interval));
  }
  return sum;
}

std::string ClusterStatus::Run() const {
  for (const ShardReports& shard : reports) {
    if (!shard.after.run().empty()) return shard.after.run();
  }
  return "";
}

uint64_t ClusterStatus::SnapshotVersion() const {
  uint64_t version = 0;
  for (const ShardReports& shard : reports) {
    version = std::max(version, shard.after.snapshot_version());
  }
  return version;
}

std::vector<std::string> LimiterInWords(const proto::TableDescription& table) {
  std::vector<std::string> words;
  if (!table.writers_wait_for().empty()) {
    words.push_back(absl::StrCat("writers wait: ", table.writers_wait_for()));
  }
  if (!table.samplers_wait_for().empty()) {
    words.push_back(absl::StrCat("samplers wait: ", table.samplers_wait_for()));
  }
  if (words.empty()) words.emplace_back("the rate limiter holds nobody back");
  return words;
}

std::string StateInWords(const proto::DescribeReply& report) {
  if (!report.draining()) return "serving";
  if (report.writers_to_drain() == 0) return "drained: can be stopped without loss";
  return absl::StrCat("draining: ", report.writers_to_drain(), " writers may still send rows");
}

absl::Status RunStatus(const Program& program, const StatusOptions& options) {
  absl::StatusOr<std::vector<ShardContact>> links = LinkShards(program);
  if (!links.ok()) return links.status();
  std::vector<proto::DescribeReply> before, after;
  std::vector<absl::Status> first = DescribeAll(*links, options.timeout, program.stop, &before);
  const absl::Time asked = absl::Now();
  const bool any = std::any_of(first.begin(), first.end(),
                               [](const absl::Status& status) { return status.ok(); });
  if (!any) return AllOf(first);
  if (program.stop.WaitFor(options.interval)) return absl::OkStatus();
  ClusterStatus status;
  status.answers = DescribeAll(*links, options.timeout, program.stop, &after);
  status.interval = absl::Now() - asked;
  for (size_t i = 0; i < links->size(); ++i) {
    status.addresses.push_back((*links)[i].address);
    // A shard that was not there before is compared with itself.
    if (!first[i].ok()) before[i] = after[i];
    status.reports.push_back({.before = std::move(before[i]), .after = std::move(after[i])});
  }
  status.connected = WhoIsConnected(status.reports, status.interval);
  std::cout << (options.json ? StatusJson(status) : StatusText(status)) << std::flush;
  return AllOf(status.answers);
}

}  // namespace troupe
