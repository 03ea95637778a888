#include "deploy/operator/connected.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace troupe {
namespace {

// What tells calls of different peers apart.
using CallKey = std::tuple<std::string, std::string, std::string>;
CallKey KeyOf(const proto::CallDescription& call) {
  return {call.address(), call.method(), call.table()};
}

// What calls that are alike have brought and taken together; a peer may have several.
struct Amounts {
  uint64_t rows = 0;
  uint64_t windows = 0;
};

using AmountsByKey = std::map<CallKey, Amounts>;
AmountsByKey AmountsOf(const proto::DescribeReply& report) {
  AmountsByKey amounts;
  for (const proto::CallDescription& call : report.calls()) {
    Amounts& sum = amounts[KeyOf(call)];
    sum.rows += call.rows();
    sum.windows += call.windows();
  }
  return amounts;
}

// Amounts begin anew with a call; one that has begun in between counts from its beginning.
double Rate(uint64_t before, uint64_t after, absl::Duration interval) {
  const double seconds = absl::ToDoubleSeconds(interval);
  return after > before && seconds > 0 ? static_cast<double>(after - before) / seconds : 0;
}

// What a process does with the shards.
struct Process {
  Connected connected;
  std::set<std::string> methods;
};

const std::string& NameOf(const proto::CallDescription& call) {
  return call.client().empty() ? call.address() : call.client();
}

std::string KindOf(const std::set<std::string>& methods) {
  if (methods.count("Append") == 1) return "actor";
  if (methods.count("Sample") == 1) return "learner";
  if (methods.count("Follow") == 1) return "follower";
  if (methods.count("Subscribe") == 1) return "evaluator";
  return "publisher";
}

void AddCall(size_t shard, const proto::CallDescription& call, Process* process) {
  Connected& connected = process->connected;
  process->methods.insert(call.method());
  connected.client = NameOf(call);
  connected.role = call.role();
  connected.shards.insert(shard);
  ++connected.calls;
  connected.streams += call.streams();
  connected.snapshot_version = std::max(connected.snapshot_version, call.snapshot_version());
  connected.held_back = connected.held_back || call.held_back();
}

using Processes = std::map<std::string, Process>;

void AddShard(size_t shard, const ShardReports& reports, absl::Duration interval,
              Processes* processes) {
  const AmountsByKey before = AmountsOf(reports.before);
  AmountsByKey after = AmountsOf(reports.after);
  for (const proto::CallDescription& call : reports.after.calls()) {
    Process& process = (*processes)[NameOf(call)];
    AddCall(shard, call, &process);
    const auto found = before.find(KeyOf(call));
    const Amounts earlier = found == before.end() ? Amounts() : found->second;
    const Amounts later = std::exchange(after[KeyOf(call)], {});  // counted once
    process.connected.rows_per_second += Rate(earlier.rows, later.rows, interval);
    process.connected.windows_per_second += Rate(earlier.windows, later.windows, interval);
  }
}

}  // namespace

std::vector<Connected> WhoIsConnected(const std::vector<ShardReports>& shards,
                                      absl::Duration interval) {
  Processes processes;
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    AddShard(shard, shards[shard], interval, &processes);
  }
  std::vector<Connected> connected;
  for (auto& [name, process] : processes) {
    process.connected.kind = KindOf(process.methods);
    connected.push_back(std::move(process.connected));
  }
  const auto order = [](const Connected& one) {
    return std::pair(one.kind == "actor", one.client);
  };
  std::sort(connected.begin(), connected.end(),
            [&](const Connected& a, const Connected& b) { return order(a) < order(b); });
  return connected;
}

}  // namespace troupe
