// Environment steps per second through policy, packing and gRPC into a shard, beside the bare
// vector environment in turns on the same cores, as a line of bench.jsonl.
//   actor_bench [--id HalfCheetah-v5] [--num_envs 64] [--num_threads 2] [--seconds 3] [--rounds 5]
// The shard runs in this process and shares the cores.  OPENBLAS_NUM_THREADS=1 must be set, as it
// is for actors.
#include <stdlib.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "actor/env.h"
#include "actor/run_actor.h"
#include "actor/vector_env.h"
#include "common/crc32c.h"
#include "common/policy_codec.h"
#include "common/version.h"
#include "nlohmann/json.hpp"
#include "replay_server/server.h"
#include "spdlog/spdlog.h"
#include "tests/bench/bench_line.h"

ABSL_FLAG(std::string, id, "HalfCheetah-v5", "environment");
ABSL_FLAG(int, num_envs, 64, "environments stepped together");
ABSL_FLAG(int, num_threads, 2, "threads that step them");
ABSL_FLAG(double, seconds, 3, "how long one measurement takes");
ABSL_FLAG(int, rounds, 5, "measurements of each kind; medians are printed");

namespace troupe {
namespace {

constexpr char kRun[] = "bench";
constexpr char kTable[] = "replay";

proto::Environment EnvironmentConfig() {
  proto::Environment config;
  config.set_id(absl::GetFlag(FLAGS_id));
  return config;
}

// An untrained policy of two hidden layers of 256, as SAC's.
SnapshotPtr MakeSnapshot(const EnvSpec& spec) {
  PolicyMetadata metadata;
  metadata.run = kRun;
  metadata.version = PolicyVersion{.epoch = 1, .counter = 1}.Packed();
  metadata.observation_size = spec.observation_size;
  metadata.action_size = spec.action_size;
  metadata.action_low = spec.action_low;
  metadata.action_high = spec.action_high;
  metadata.network = WithHiddenSizes({});
  metadata.log_std_min = -20;
  metadata.log_std_max = 2;
  FlatParameters actor(MlpParameters(PolicyShape(metadata)), torch::kFloat32);
  actor.Initialize(1);
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->run = kRun;
  snapshot->version = metadata.version;
  snapshot->image = EncodePolicy(metadata, actor).value();
  snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
  return snapshot;
}

// Unit: environment steps per second.
double Bare(VectorEnv& envs) {
  const std::vector<float> actions(envs.num_envs() * envs.spec().action_size, 0.3f);
  const absl::Time end = absl::Now() + absl::Seconds(absl::GetFlag(FLAGS_seconds));
  const absl::Time start = absl::Now();
  int64_t steps = 0;
  for (; absl::Now() < end; steps += envs.num_envs()) envs.Step(actions);
  return static_cast<double>(steps) / absl::ToDoubleSeconds(absl::Now() - start);
}

ActorOptions MakeActorOptions(const std::string& shard) {
  ActorOptions options{.environment = EnvironmentConfig(),
                       .asset_dir = DefaultAssetDir(),
                       .num_threads = absl::GetFlag(FLAGS_num_threads)};
  options.writer.shards = {shard};
  options.writer.run = kRun;
  options.writer.table = kTable;
  options.writer.num_envs = absl::GetFlag(FLAGS_num_envs);
  options.snapshots.shards = {shard};
  options.snapshots.run = kRun;
  return options;
}

uint64_t EnvSteps(Server& server) {
  return server.shard().tables()[0]->Describe().counts().env_steps();
}

// Rows that the shard has stored in a second, final rows left out.
double Measure(Server& server) {
  while (EnvSteps(server) < 1000) absl::SleepFor(absl::Milliseconds(10));
  const absl::Time start = absl::Now();
  const uint64_t before = EnvSteps(server);
  absl::SleepFor(absl::Seconds(absl::GetFlag(FLAGS_seconds)));
  return static_cast<double>(EnvSteps(server) - before) /
         absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<double> ThroughTheSystem(const SnapshotPtr& snapshot, const std::string& data_dir) {
  ShardOptions options{.data_dir = data_dir};
  options.tables.push_back({.name = kTable, .path = "", .capacity_rows = 1000000});
  auto server = Server::Start("127.0.0.1:0", options);
  if (!server.ok()) return server.status();
  const std::string shard = absl::StrCat("127.0.0.1:", (*server)->port());
  auto publisher = SnapshotPublisher::Create({.shards = {shard}, .run = kRun});
  if (!publisher.ok()) return publisher.status();
  absl::Status status = (*publisher)->Publish(snapshot);
  status.Update((*publisher)->WaitPublished(snapshot->version, absl::Now() + absl::Seconds(10)));
  if (!status.ok()) return status;
  StopToken stop;
  Metrics metrics("actor_bench");
  std::thread actor([&] { status = RunActor(MakeActorOptions(shard), stop, metrics); });
  const double value = Measure(**server);
  stop.Request();
  actor.join();
  (*publisher)->Stop();
  (*server)->Stop(absl::Seconds(1));
  if (!status.ok()) return status;
  return value;
}

absl::Status Run() {
  auto envs = VectorEnv::Make(EnvironmentConfig(), DefaultAssetDir(), absl::GetFlag(FLAGS_num_envs),
                              absl::GetFlag(FLAGS_num_threads), 1);
  if (!envs.ok()) return envs.status();
  (*envs)->Reset();
  const SnapshotPtr snapshot = MakeSnapshot((*envs)->spec());
  std::vector<double> bare, through, ratios;
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    char data_dir[] = "/tmp/actor_bench.XXXXXX";
    if (mkdtemp(data_dir) == nullptr) return absl::UnavailableError("cannot make a temp folder");
    absl::StatusOr<double> value = ThroughTheSystem(snapshot, data_dir);
    std::filesystem::remove_all(data_dir);
    if (!value.ok()) return value.status();
    through.push_back(*value);
    bare.push_back(Bare(**envs));
    ratios.push_back(through.back() / bare.back());
  }
  std::cout << nlohmann::ordered_json{{"name", "actor.env_steps"},
                                      {"case", absl::StrCat(absl::GetFlag(FLAGS_id), "/",
                                                            absl::GetFlag(FLAGS_num_envs))},
                                      {"value", Median(through)},
                                      {"unit", "steps/s"},
                                      {"peer", "the bare vector environment, same threads"},
                                      {"peer_value", Median(bare)},
                                      {"ratio_median", Median(ratios)},
                                      {"ratios", ratios},
                                      {"threads", absl::GetFlag(FLAGS_num_threads)},
                                      {"machine", Machine()}}
            << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  spdlog::set_level(spdlog::level::warn);
  const absl::Status status = troupe::Run();
  if (!status.ok()) std::cerr << "actor_bench: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
