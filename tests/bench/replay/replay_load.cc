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
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"
#include "proto/replay.grpc.pb.h"
#include "tests/bench/replay/report.h"

ABSL_FLAG(std::string, mode, "append",
          "append; sample; both; fill: append --rows rows and stop; follow: until the client has "
          "all that the shard holds; describe: what the shard says; transport: bare gRPC to a "
          "process of its own, messages of --message_bytes out and --reply_bytes back");
ABSL_FLAG(std::string, target, "127.0.0.1:7001", "host:port of the shard");
ABSL_FLAG(int, server_pid, 0, "the shard's process, for its CPU time; 0: not measured");
ABSL_FLAG(std::string, run, "bench", "name of the run");
ABSL_FLAG(std::string, table, "replay", "table");
ABSL_FLAG(std::string, layout, "half_cheetah", "half_cheetah, humanoid or pixels");
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
ABSL_FLAG(bool, update_priorities, false, "a new priority for every window that was sampled");
ABSL_FLAG(int64_t, window_length, 2, "rows of a window, as the table has it");
ABSL_FLAG(double, samples_per_insert, 0, "as the table has it, for the drift of the ratio");
ABSL_FLAG(int64_t, min_size, 1, "as the table has it");
ABSL_FLAG(int64_t, reply_bytes, 16, "transport: bytes of each reply");

namespace troupe {
namespace {

using Json = nlohmann::json;

// Paced clients look this often whether a message is due.
constexpr absl::Duration kTick = absl::Milliseconds(1);

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
    auto channel =
        MakeChannel(absl::GetFlag(FLAGS_target), *Credentials::Plaintext(/*anywhere=*/true));
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
  options.update_priorities = absl::GetFlag(FLAGS_update_priorities);
  options.min_size = absl::GetFlag(FLAGS_min_size);
  for (int i = 0; i < CountOf(FLAGS_sample_clients); ++i) {
    auto channel =
        MakeChannel(absl::GetFlag(FLAGS_target), *Credentials::Plaintext(/*anywhere=*/true));
    if (!channel.ok()) return channel.status();
    load->sample.push_back(std::make_unique<SampleClient>(*channel, options, measuring));
  }
  return absl::OkStatus();
}

absl::Status AddFollowClients(const std::shared_ptr<const RowPatterns>& patterns,
                              const Measuring* measuring, Load* load) {
  const FollowLoad options{absl::GetFlag(FLAGS_run), absl::GetFlag(FLAGS_table), patterns};
  for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
    auto channel =
        MakeChannel(absl::GetFlag(FLAGS_target), *Credentials::Plaintext(/*anywhere=*/true));
    if (!channel.ok()) return channel.status();
    load->follow.push_back(std::make_unique<FollowClient>(*channel, options, measuring));
  }
  return absl::OkStatus();
}

absl::Status AddTransportClients(const std::string& target, const Measuring* measuring,
                                 Load* load) {
  for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
    auto channel = MakeChannel(target, *Credentials::Plaintext());
    if (!channel.ok()) return channel.status();
    load->transport.push_back(std::make_unique<TransportClient>(
        *channel, TransportLoad{absl::GetFlag(FLAGS_message_bytes), absl::GetFlag(FLAGS_in_flight)},
        measuring));
  }
  return absl::OkStatus();
}

// Brings a server of its own.
absl::Status AddTransport(const Measuring* measuring, Load* load, pid_t* server) {
  const TransportServer own = ForkTransportServer(absl::GetFlag(FLAGS_reply_bytes));
  if (own.port == 0) return absl::UnavailableError("the transport's server did not start");
  *server = own.pid;
  return AddTransportClients(absl::StrCat("127.0.0.1:", own.port), measuring, load);
}

// `server` is changed for the transport alone.
absl::Status MakeLoad(const Measuring* measuring, Load* load, pid_t* server) {
  const std::string mode = absl::GetFlag(FLAGS_mode);
  if (mode == "transport") return AddTransport(measuring, load, server);
  absl::StatusOr<Layout> layout = LayoutNamed(absl::GetFlag(FLAGS_layout));
  if (!layout.ok()) return layout.status();
  auto patterns =
      MakePatterns(*layout, absl::GetFlag(FLAGS_episode_rows), absl::GetFlag(FLAGS_row_priorities));
  if (!patterns.ok()) return patterns.status();
  if (mode == "append" || mode == "fill") return AddAppendClients(*patterns, measuring, load);
  if (mode == "sample") return AddSampleClients(*patterns, measuring, load);
  if (mode == "follow") return AddFollowClients(*patterns, measuring, load);
  if (mode != "both") return absl::InvalidArgumentError(absl::StrCat("there is no --mode ", mode));
  const absl::Status status = AddAppendClients(*patterns, measuring, load);
  return status.ok() ? AddSampleClients(*patterns, measuring, load) : status;
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

// The shard's DescribeReply in protobuf's JSON, with the names of the .proto.
absl::StatusOr<Json> Describe() {
  auto channel =
      MakeChannel(absl::GetFlag(FLAGS_target), *Credentials::Plaintext(/*anywhere=*/true));
  if (!channel.ok()) return channel.status();
  grpc::ClientContext context;
  proto::DescribeReply reply;
  const grpc::Status status =
      proto::Replay::NewStub(*channel)->Describe(&context, proto::DescribeRequest(), &reply);
  if (!status.ok()) return FromGrpc(status, "shard", absl::GetFlag(FLAGS_target));
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(reply, &text, options).ok()) {
    return absl::InternalError("the shard's description cannot be written as JSON");
  }
  return Json::parse(text);
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

// Load that has an end of its own: fill and follow.
absl::StatusOr<Json> RunToEnd(const Load& load, Measuring* measuring, pid_t server) {
  *measuring = true;
  const Progress from = ReadProgress(load, server);
  for (StreamClient* client : load.all()) client->Start();
  for (const auto& client : load.append) client->Await();
  for (const auto& client : load.follow) client->AwaitCaughtUp();
  const Progress to = ReadProgress(load, server);
  for (const auto& client : load.follow) client->End();
  const absl::Status ended = AwaitAll(load, load.append.empty() ? grpc::CANCELLED : grpc::OK);
  if (!ended.ok()) return ended;
  return Report(load, from, to);
}

absl::StatusOr<Json> RunForSeconds(const Load& load, Measuring* measuring, pid_t server) {
  for (StreamClient* client : load.all()) client->Start();
  Pass(load, absl::GetFlag(FLAGS_warm_up_seconds));
  *measuring = true;
  const Progress from = ReadProgress(load, server);
  Pass(load, absl::GetFlag(FLAGS_seconds));
  const Progress to = ReadProgress(load, server);
  *measuring = false;
  for (StreamClient* client : load.all()) client->End();
  if (absl::Status ended = AwaitAll(load, grpc::CANCELLED); !ended.ok()) return ended;
  return Report(load, from, to);
}

absl::StatusOr<Json> Run() {
  const std::string mode = absl::GetFlag(FLAGS_mode);
  if (mode == "describe") return Describe();
  Measuring measuring = false;
  pid_t server = absl::GetFlag(FLAGS_server_pid);
  Load load;
  if (absl::Status made = MakeLoad(&measuring, &load, &server); !made.ok()) return made;
  const bool has_end = mode == "fill" || mode == "follow";
  return has_end ? RunToEnd(load, &measuring, server) : RunForSeconds(load, &measuring, server);
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
