#include "tests/bench/replay/report.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace troupe {
namespace {

using Json = nlohmann::json;

template <typename Client>
int64_t Units(const std::vector<std::unique_ptr<Client>>& clients) {
  int64_t units = 0;
  for (const auto& client : clients) units += client->tally().units.load();
  return units;
}

std::vector<int64_t> UnitsOfEach(const std::vector<std::unique_ptr<AppendClient>>& clients) {
  std::vector<int64_t> units;
  for (const auto& client : clients) units.push_back(client->tally().units.load());
  return units;
}

// How evenly the clients were served.
void AddSpread(const Progress& from, const Progress& to, Json* out) {
  std::vector<int64_t> rows;
  for (size_t i = 0; i < to.appended_by.size(); ++i) {
    rows.push_back(to.appended_by[i] - from.appended_by[i]);
  }
  (*out)["least_rows_of_a_client"] = *std::min_element(rows.begin(), rows.end());
  (*out)["most_rows_of_a_client"] = *std::max_element(rows.begin(), rows.end());
}

template <typename Client>
void AddLatencies(const std::string& name, const std::vector<std::unique_ptr<Client>>& clients,
                  Json* out) {
  std::vector<float> all;
  for (const auto& client : clients) {
    const std::vector<float>& own = client->tally().latency_ms;
    all.insert(all.end(), own.begin(), own.end());
  }
  (*out)[name + "_p50_ms"] = Quantile(0.5, &all);
  (*out)[name + "_p99_ms"] = Quantile(0.99, &all);
}

// Rate of `units`, and the CPU that one costs each side.
void AddRate(const std::string& name, int64_t units, const CpuTimes& from, const CpuTimes& to,
             Json* out) {
  const double seconds = std::chrono::duration<double>(to.at - from.at).count();
  const double us_per_unit = units > 0 ? 1e6 / static_cast<double>(units) : 0;
  (*out)[name + "s"] = units;
  (*out)[name + "s_per_second"] = static_cast<double>(units) / seconds;
  (*out)["client_us_per_" + name] = (to.client - from.client) * us_per_unit;
  if (to.server > 0) {
    (*out)["server_us_per_" + name] = (to.server - from.server) * us_per_unit;
  }
}

void AddMachine(const CpuTimes& from, const CpuTimes& to, Json* out) {
  const double machine = to.machine - from.machine;
  const double idle = to.idle - from.idle;
  const double own = to.client - from.client + to.server - from.server;
  const double steal = to.steal - from.steal;
  (*out)["seconds"] = std::chrono::duration<double>(to.at - from.at).count();
  (*out)["client_cpu_seconds"] = to.client - from.client;
  (*out)["server_cpu_seconds"] = to.server - from.server;
  if (machine <= 0) return;  // shorter than a tick
  (*out)["steal_share"] = steal / machine;
  // What other processes had; a tick of /proc/stat is 10 ms, so short runs are a little off.
  (*out)["others_share"] = std::max(0.0, (machine - idle - steal - own) / machine);
}

void AddFindings(const std::vector<std::unique_ptr<SampleClient>>& clients, Json* out) {
  SampleFindings sum;
  for (const auto& client : clients) sum.Add(client->findings());
  (*out)["wrong_windows"] = sum.wrong_windows;
  (*out)["wrong_replies"] = sum.wrong_replies;
  (*out)["empty_replies"] = sum.empty_replies;
  if (!sum.drift_known) return;
  (*out)["drift_min_samples"] = sum.drift_min;
  (*out)["drift_max_samples"] = sum.drift_max;
}

void AddFindings(const std::vector<std::unique_ptr<FollowClient>>& clients, Json* out) {
  int64_t wrong_rows = 0, wrong_replies = 0;
  for (const auto& client : clients) {
    wrong_rows += client->wrong_rows();
    wrong_replies += client->wrong_replies();
  }
  (*out)["wrong_rows"] = wrong_rows;
  (*out)["wrong_replies"] = wrong_replies;
}

}  // namespace

std::vector<StreamClient*> Load::all() const {
  std::vector<StreamClient*> clients;
  for (const auto& client : append) clients.push_back(client.get());
  for (const auto& client : sample) clients.push_back(client.get());
  for (const auto& client : follow) clients.push_back(client.get());
  for (const auto& client : transport) clients.push_back(client.get());
  return clients;
}

Progress ReadProgress(const Load& load, pid_t server_pid) {
  return {ReadCpuTimes(server_pid), Units(load.append),    Units(load.sample),
          Units(load.follow),       Units(load.transport), UnitsOfEach(load.append)};
}

Json Report(const Load& load, const Progress& from, const Progress& to) {
  Json out;
  AddMachine(from.cpu, to.cpu, &out);
  if (!load.append.empty()) {
    AddRate("row", to.appended - from.appended, from.cpu, to.cpu, &out);
    AddLatencies("ack", load.append, &out);
    AddSpread(from, to, &out);
  }
  if (!load.sample.empty()) {
    AddRate("window", to.sampled - from.sampled, from.cpu, to.cpu, &out);
    AddLatencies("request", load.sample, &out);
    AddFindings(load.sample, &out);
  }
  if (!load.follow.empty()) {
    AddRate("row", to.followed - from.followed, from.cpu, to.cpu, &out);
    AddFindings(load.follow, &out);
  }
  if (!load.transport.empty()) {
    AddRate("message", to.messages - from.messages, from.cpu, to.cpu, &out);
    AddLatencies("message", load.transport, &out);
  }
  return out;
}

}  // namespace troupe
