#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "deploy/operator/status.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

Json FiguresJson(const TableFigures& figures) {
  return {{"rows", figures.rows},
          {"capacity_rows", figures.capacity_rows},
          {"env_steps", figures.env_steps},
          {"windows_inserted", figures.inserted},
          {"windows_sampled", figures.sampled},
          {"env_steps_per_second", figures.steps_per_second},
          {"windows_sampled_per_second", figures.sampled_per_second},
          {"lag_versions", figures.lag()},
          {"append_calls", figures.writers},
          {"sample_calls", figures.samplers},
          {"follow_calls", figures.followers}};
}

Json TablesJson(const ShardReports& reports, absl::Duration interval) {
  Json tables = Json::array();
  for (int i = 0; i < reports.after.tables_size(); ++i) {
    const proto::TableDescription& table = reports.after.tables(i);
    Json json = {{"name", table.name()}};
    json.update(FiguresJson(FiguresOf(reports, i, interval)));
    json["writers_wait_for"] = table.writers_wait_for();
    json["samplers_wait_for"] = table.samplers_wait_for();
    tables.push_back(std::move(json));
  }
  return tables;
}

Json ShardJson(const ClusterStatus& status, size_t shard) {
  Json json = {{"address", status.addresses[shard]}, {"answers", status.answered(shard)}};
  if (!status.answered(shard)) {
    json["error"] = std::string(status.answers[shard].message());
    return json;
  }
  const proto::DescribeReply& report = status.reports[shard].after;
  json["run"] = report.run();
  json["state"] = StateInWords(report);
  json["draining"] = report.draining();
  json["writers_to_drain"] = report.writers_to_drain();
  json["snapshot_version"] = report.snapshot_version();
  json["ack_level"] = report.ack_level();
  json["message_bytes"] = report.message_bytes();
  json["message_budget_bytes"] = report.message_budget_bytes();
  json["messages_wait_for"] = report.messages_wait_for();
  json["tables"] = TablesJson(status.reports[shard], status.interval);
  return json;
}

Json ConnectedJson(const Connected& one) {
  return {{"kind", one.kind},
          {"client", one.client},
          {"role", one.role},
          {"shards", one.shards},
          {"calls", one.calls},
          {"streams", one.streams},
          {"rows_per_second", one.rows_per_second},
          {"windows_per_second", one.windows_per_second},
          {"snapshot_version", one.snapshot_version},
          {"held_back", one.held_back}};
}

}  // namespace

std::string StatusJson(const ClusterStatus& status) {
  Json json = {{"run", status.Run()},
               {"snapshot_version", status.SnapshotVersion()},
               {"interval_seconds", absl::ToDoubleSeconds(status.interval)},
               {"sum", FiguresJson(status.Sum())},
               {"shards", Json::array()},
               {"connected", Json::array()}};
  for (size_t shard = 0; shard < status.addresses.size(); ++shard) {
    json["shards"].push_back(ShardJson(status, shard));
  }
  for (const Connected& one : status.connected) json["connected"].push_back(ConnectedJson(one));
  return absl::StrCat(json.dump(2, ' ', false, Json::error_handler_t::replace), "\n");
}

}  // namespace troupe
