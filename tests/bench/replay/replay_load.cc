// troupe-replay-load: load on a running shard, as one line of JSON.
//
//   troupe-replay-load --mode append --target 127.0.0.1:7001 --server_pid PID
//
// The clients cost as little as can be: gRPC's callback API, raw messages.  Rows are packed anew
// for every message, windows are copied into one batch and checked.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/channel.h"
#include "nlohmann/json.hpp"
#include "tests/bench/replay/append_client.h"
#include "tests/bench/replay/measure.h"
#include "tests/bench/replay/sample_client.h"
#include "tests/bench/replay/transport.h"

ABSL_FLAG(std::string, mode, "append",
          "append; sample; both; fill: append --rows rows and stop; transport: bare gRPC to a "
          "process of its own, messages of --message_bytes out and --reply_bytes back");
ABSL_FLAG(std::string, target, "127.0.0.1:7001", "host:port of the shard");
ABSL_FLAG(int, server_pid, 0, "the shard's process, for its CPU time; 0: not measured");
ABSL_FLAG(std::string, run, "bench", "name of the run");
ABSL_FLAG(std::string, table, "replay", "table");
ABSL_FLAG(std::string, layout, "half_cheetah", "half_cheetah or humanoid");
ABSL_FLAG(int, clients, 1, "appending and sampling clients, each on a connection of its own");
ABSL_FLAG(int, append_clients, 0, "if not --clients");
ABSL_FLAG(int, sample_clients, 0, "if not --clients");
ABSL_FLAG(double, warm_up_seconds, 0.5, "before figures are taken");
ABSL_FLAG(double, seconds, 2, "over which figures are taken");
ABSL_FLAG(int64_t, message_bytes, 65536, "rows in one message");
ABSL_FLAG(int64_t, runs, 1, "streams of a client, which share each message");
ABSL_FLAG(int64_t, window_bytes, 4 << 20, "unacked bytes of a client");
ABSL_FLAG(double, rows_per_second, 0, "pace of all appends together; 0: as fast as they go");
ABSL_FLAG(int64_t, rows, 1000000,
          "fill: rows; of each client, the last message rounds up to --runs");
ABSL_FLAG(int64_t, episode_rows, 1000, "every so manieth row of a stream is a final row");
ABSL_FLAG(bool, row_priorities, false, "rows carry random priorities of their own");
ABSL_FLAG(int64_t, batch, 256, "windows of one request");
ABSL_FLAG(int64_t, in_flight, 16, "requests, or transport messages, of a client under way");
ABSL_FLAG(int64_t, window_length, 2, "rows of a window, as the table has it");
ABSL_FLAG(double, samples_per_insert, 0, "as the table has it, for the drift of the ratio");
ABSL_FLAG(int64_t, min_size, 1, "as the table has it");
ABSL_FLAG(int64_t, reply_bytes, 16, "transport: bytes of each reply");

namespace troupe {
namespace {

using Json = nlohmann::json;

// Paced clients look this often whether a message is due.
constexpr absl::Duration kTick = absl::Milliseconds(1);

struct Load {
  std::vector<std::unique_ptr<AppendClient>> append;
  std::vector<std::unique_ptr<SampleClient>> sample;
  std::vector<std::unique_ptr<TransportClient>> transport;

  std::vector<StreamClient*> all() const {
    std::vector<StreamClient*> clients;
    for (const auto& client : append) clients.push_back(client.get());
    for (const auto& client : sample) clients.push_back(client.get());
    for (const auto& client : transport) clients.push_back(client.get());
    return clients;
  }
};

template <typename Client>
int64_t Units(const std::vector<std::unique_ptr<Client>>& clients) {
  int64_t units = 0;
  for (const auto& client : clients) units += client->tally().units.load();
  return units;
}

struct Snapshot {
  CpuTimes cpu;
  int64_t rows, windows, messages;
};

Snapshot Look(const Load& load, pid_t server) {
  return {ReadCpuTimes(server), Units(load.append), Units(load.sample), Units(load.transport)};
}

int CountOf(const absl::Flag<int>& own) {
  const int count = absl::GetFlag(own);
  return count > 0 ? count : absl::GetFlag(FLAGS_clients);
}

absl::Status AddAppendClients(std::shared_ptr<const RowPatterns> patterns,
                              const Measuring* measuring, Load* load) {
  const int clients = CountOf(FLAGS_append_clients);
  AppendLoad options{absl::GetFlag(FLAGS_run), absl::GetFlag(FLAGS_table), std::move(patterns)};
  options.message_bytes = absl::GetFlag(FLAGS_message_bytes);
  options.runs = absl::GetFlag(FLAGS_runs);
  options.window_bytes = absl::GetFlag(FLAGS_window_bytes);
  options.rows_per_second = absl::GetFlag(FLAGS_rows_per_second) / clients;
  const int64_t rows = absl::GetFlag(FLAGS_mode) == "fill" ? absl::GetFlag(FLAGS_rows) : 0;
  for (int i = 0; i < clients; ++i) {
    options.rows = rows * (i + 1) / clients - rows * i / clients;
    auto channel = MakeChannel(absl::GetFlag(FLAGS_target), true);
    if (!channel.ok()) return channel.status();
    load->append.push_back(std::make_unique<AppendClient>(*channel, options, measuring));
  }
  return absl::OkStatus();
}

absl::Status AddSampleClients(std::shared_ptr<const RowPatterns> patterns,
                              const Measuring* measuring, Load* load) {
  SampleLoad options{absl::GetFlag(FLAGS_run), absl::GetFlag(FLAGS_table), std::move(patterns)};
  options.batch = absl::GetFlag(FLAGS_batch);
  options.in_flight = absl::GetFlag(FLAGS_in_flight);
  options.window_length = absl::GetFlag(FLAGS_window_length);
  options.samples_per_insert = absl::GetFlag(FLAGS_samples_per_insert);
  options.min_size = absl::GetFlag(FLAGS_min_size);
  for (int i = 0; i < CountOf(FLAGS_sample_clients); ++i) {
    auto channel = MakeChannel(absl::GetFlag(FLAGS_target), true);
    if (!channel.ok()) return channel.status();
    load->sample.push_back(std::make_unique<SampleClient>(*channel, options, measuring));
  }
  return absl::OkStatus();
}

absl::Status AddTransportClients(const std::string& target, const Measuring* measuring,
                                 Load* load) {
  for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
    auto channel = MakeChannel(target, false);
    if (!channel.ok()) return channel.status();
    load->transport.push_back(std::make_unique<TransportClient>(
        *channel, TransportLoad{absl::GetFlag(FLAGS_message_bytes), absl::GetFlag(FLAGS_in_flight)},
        measuring));
  }
  return absl::OkStatus();
}

// `server` is set for the transport alone, which brings its own.
absl::StatusOr<Load> MakeLoad(const Measuring* measuring, pid_t* server) {
  const std::string mode = absl::GetFlag(FLAGS_mode);
  Load load;
  if (mode == "transport") {
    const TransportServer own = ForkTransportServer(absl::GetFlag(FLAGS_reply_bytes));
    if (own.port == 0) return absl::UnavailableError("the transport's server did not start");
    *server = own.pid;
    const std::string target = absl::StrCat("127.0.0.1:", own.port);
    if (auto status = AddTransportClients(target, measuring, &load); !status.ok()) return status;
    return load;
  }
  const bool append = mode == "append" || mode == "both" || mode == "fill";
  const bool sample = mode == "sample" || mode == "both";
  if (!append && !sample) return absl::InvalidArgumentError(absl::StrCat("no --mode ", mode));
  absl::StatusOr<Layout> layout = LayoutNamed(absl::GetFlag(FLAGS_layout));
  if (!layout.ok()) return layout.status();
  auto patterns =
      MakePatterns(*layout, absl::GetFlag(FLAGS_episode_rows), absl::GetFlag(FLAGS_row_priorities));
  if (!patterns.ok()) return patterns.status();
  absl::Status status;
  if (append) status = AddAppendClients(*patterns, measuring, &load);
  if (status.ok() && sample) status = AddSampleClients(*patterns, measuring, &load);
  if (!status.ok()) return status;
  return load;
}

// Lets `seconds` pass.
void Pass(const Load& load, double seconds) {
  if (absl::GetFlag(FLAGS_rows_per_second) <= 0) return absl::SleepFor(absl::Seconds(seconds));
  const absl::Time end = absl::Now() + absl::Seconds(seconds);
  while (absl::Now() < end) {
    absl::SleepFor(kTick);
    for (const auto& client : load.append) client->Wake();
  }
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
  const double per_unit = units > 0 ? 1e6 / static_cast<double>(units) : 0;
  (*out)[name + "s"] = units;
  (*out)[name + "s_per_second"] = static_cast<double>(units) / seconds;
  (*out)["client_us_per_" + name] = (to.client - from.client) * per_unit;
  if (to.server > 0) (*out)["server_us_per_" + name] = (to.server - from.server) * per_unit;
}

void AddMachine(const CpuTimes& from, const CpuTimes& to, Json* out) {
  const double machine = to.machine - from.machine;
  const double idle = to.idle - from.idle;
  const double own = to.client - from.client + to.server - from.server;
  const double steal = to.steal - from.steal;
  (*out)["seconds"] = std::chrono::duration<double>(to.at - from.at).count();
  (*out)["client_cpu_seconds"] = to.client - from.client;
  (*out)["server_cpu_seconds"] = to.server - from.server;
  if (machine <= 0) return;
  (*out)["steal_share"] = steal / machine;
  // What other processes had; the tick of /proc/stat is 10 ms, so it may be a little off.
  (*out)["others_share"] = (machine - idle - steal - own) / machine;
}

void AddFindings(const Load& load, Json* out) {
  SampleFindings sum;
  bool drift_known = false;
  for (const auto& client : load.sample) {
    const SampleFindings& own = client->findings();
    sum.wrong_windows += own.wrong_windows;
    sum.wrong_replies += own.wrong_replies;
    sum.empty_replies += own.empty_replies;
    if (!own.drift_known) continue;
    sum.drift_min = drift_known ? std::min(sum.drift_min, own.drift_min) : own.drift_min;
    sum.drift_max = drift_known ? std::max(sum.drift_max, own.drift_max) : own.drift_max;
    drift_known = true;
  }
  (*out)["wrong_windows"] = sum.wrong_windows;
  (*out)["wrong_replies"] = sum.wrong_replies;
  (*out)["empty_replies"] = sum.empty_replies;
  if (!drift_known || absl::GetFlag(FLAGS_samples_per_insert) <= 0) return;
  (*out)["drift_min_samples"] = sum.drift_min;
  (*out)["drift_max_samples"] = sum.drift_max;
}

Json Report(const Load& load, const Snapshot& from, const Snapshot& to) {
  Json out = {{"mode", absl::GetFlag(FLAGS_mode)}, {"layout", absl::GetFlag(FLAGS_layout)}};
  AddMachine(from.cpu, to.cpu, &out);
  if (!load.append.empty()) {
    AddRate("row", to.rows - from.rows, from.cpu, to.cpu, &out);
    AddLatencies("ack", load.append, &out);
  }
  if (!load.sample.empty()) {
    AddRate("window", to.windows - from.windows, from.cpu, to.cpu, &out);
    AddLatencies("request", load.sample, &out);
    AddFindings(load, &out);
  }
  if (!load.transport.empty()) {
    AddRate("message", to.messages - from.messages, from.cpu, to.cpu, &out);
    AddLatencies("message", load.transport, &out);
    const double each =
        static_cast<double>(absl::GetFlag(FLAGS_message_bytes) + absl::GetFlag(FLAGS_reply_bytes));
    out["bytes_per_second"] = out["messages_per_second"].get<double>() * each;
  }
  return out;
}

// The first call that did not end as asked.
absl::Status AwaitAll(const Load& load, grpc::StatusCode expected) {
  absl::Status result;
  for (StreamClient* client : load.all()) {
    const grpc::Status& status = client->Await();
    if (status.error_code() == expected || !result.ok()) continue;
    result = absl::AbortedError(
        absl::StrCat("a call ended with code ", status.error_code(), ": ", status.error_message()));
  }
  return result;
}

absl::StatusOr<Json> Run() {
  Measuring measuring = false;
  pid_t server = absl::GetFlag(FLAGS_server_pid);
  absl::StatusOr<Load> load = MakeLoad(&measuring, &server);
  if (!load.ok()) return load.status();
  const bool fill = absl::GetFlag(FLAGS_mode) == "fill";
  measuring = fill;
  Snapshot from = Look(*load, server);
  for (StreamClient* client : load->all()) client->Start();
  if (!fill) {
    Pass(*load, absl::GetFlag(FLAGS_warm_up_seconds));
    measuring = true;
    from = Look(*load, server);
    Pass(*load, absl::GetFlag(FLAGS_seconds));
    measuring = false;
  }
  Snapshot to = Look(*load, server);
  if (!fill) {
    for (StreamClient* client : load->all()) client->End();
  }
  const absl::Status ended = AwaitAll(*load, fill ? grpc::OK : grpc::CANCELLED);
  if (!ended.ok()) return ended;
  if (fill) to = Look(*load, server);
  return Report(*load, from, to);
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Puts load on a running troupe-replay-server.");
  absl::ParseCommandLine(argc, argv);
  const absl::StatusOr<nlohmann::json> report = troupe::Run();
  if (!report.ok()) {
    std::fprintf(stderr, "troupe-replay-load: %s\n", report.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", report->dump().c_str());
  return 0;
}
