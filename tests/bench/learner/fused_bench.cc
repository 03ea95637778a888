// SAC updates per second of the fused engines, drawing from a replica of a million rows included,
// as lines of bench.jsonl.
//   fused_bench [--device cuda|cpu] [--obs 17] [--act 6] [--batches 256,1024] [--seconds 2]
//               [--exact] [--cluster 0] [--parts 0] [--nooverlap] [--graph 8] [--capacity 1000000]
//               [--threads 1] [--critics 2] [--subset 2] [--layer_norm]
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "tests/bench/bench_line.h"
#include "tests/unit/fused/random_sac.h"

ABSL_FLAG(std::string, device, "cuda", "cuda or cpu");
ABSL_FLAG(int, obs, 17, "elements of an observation");
ABSL_FLAG(int, act, 6, "elements of an action");
ABSL_FLAG(std::vector<std::string>, batches, {"256"}, "transitions of a batch");
ABSL_FLAG(double, seconds, 2, "how long to measure, after a tenth of it to warm up");
ABSL_FLAG(bool, exact, false, "products as good as float32's");
ABSL_FLAG(int, cluster, 0, "thread blocks that share 16 rows; 0: chosen");
ABSL_FLAG(int, parts, 0, "thread blocks that share the sum over the rows; 0: chosen");
ABSL_FLAG(bool, overlap, true, "kernels may begin before their predecessors have ended");
ABSL_FLAG(int, graph, 8, "updates in a graph");
ABSL_FLAG(int, threads, 1, "of a CPU");
ABSL_FLAG(int, critics, 2, "critics");
ABSL_FLAG(int, subset, 2, "critics whose least value is in the target");
ABSL_FLAG(bool, layer_norm, false, "of policy and critics");
ABSL_FLAG(int, capacity, 1000000, "rows of the replica");

namespace troupe {
namespace {

absl::StatusOr<double> UpdatesPerSecond(SacEngine& engine, absl::Duration duration) {
  const int64_t before = engine.updates();
  const absl::Time start = absl::Now();
  while (absl::Now() - start < duration) {
    absl::Status status = engine.UpdateFromReplica(64);
    if (engine.updates() % 1024 == 0) status.Update(engine.Statistics().status());
    if (!status.ok()) return status;
  }
  const auto statistics = engine.Statistics();  // waits for the device
  if (!statistics.ok()) return statistics.status();
  return static_cast<double>(engine.updates() - before) /
         absl::ToDoubleSeconds(absl::Now() - start);
}

// What the networks have beyond two plain critics.
std::string OtherNetworks(const SacModel& model) {
  std::string other;
  if (model.num_critics != 2) {
    other = absl::StrCat("/", model.target_subset, "-of-", model.num_critics, "-critics");
  }
  if (model.critic_layer_norm) absl::StrAppend(&other, "/layer_norm");
  return other;
}

absl::StatusOr<nlohmann::ordered_json> Measure(int64_t batch) {
  SacModel model;
  model.observation_size = absl::GetFlag(FLAGS_obs);
  model.action_size = absl::GetFlag(FLAGS_act);
  model.actor_hidden = model.critic_hidden = {256, 256};
  model.actor_layer_norm = model.critic_layer_norm = absl::GetFlag(FLAGS_layer_norm);
  model.num_critics = absl::GetFlag(FLAGS_critics);
  model.target_subset = absl::GetFlag(FLAGS_subset);
  model.batch_size = batch;
  model.target_entropy = -static_cast<float>(model.action_size);
  std::unique_ptr<SacEngine> engine;
  if (absl::GetFlag(FLAGS_device) == "cuda") {
    auto cuda = MakeCudaSacEngine(model, {.exact = absl::GetFlag(FLAGS_exact),
                                          .cluster_size = absl::GetFlag(FLAGS_cluster),
                                          .parts = absl::GetFlag(FLAGS_parts),
                                          .overlap = absl::GetFlag(FLAGS_overlap),
                                          .updates_per_graph = absl::GetFlag(FLAGS_graph)});
    if (!cuda.ok()) return cuda.status();
    engine = *std::move(cuda);
  } else {
    engine = MakeCpuSacEngine(model, absl::GetFlag(FLAGS_threads));
  }
  RandomSac random(model);
  absl::Status status = engine->Load(random.State());
  const auto replica =
      engine->MakeReplica({.capacity = static_cast<uint32_t>(absl::GetFlag(FLAGS_capacity)),
                           .observation_size = model.observation_size,
                           .action_size = model.action_size});
  status.Update(replica.status());
  if (status.ok()) status = random.Fill(**replica);
  if (!status.ok()) return status;
  const absl::Duration duration = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  auto rate = UpdatesPerSecond(*engine, duration / 10);
  if (rate.ok()) rate = UpdatesPerSecond(*engine, duration);
  if (!rate.ok()) return rate.status();
  return nlohmann::ordered_json{
      {"name", "learner.sac"},
      {"case", absl::StrCat(absl::GetFlag(FLAGS_device), "/", model.observation_size, "-",
                            model.action_size, "/", batch, "/fused",
                            absl::GetFlag(FLAGS_exact) ? "-fp32" : "", OtherNetworks(model))},
      {"value", *rate},
      {"unit", "updates/s"},
      {"machine", absl::GetFlag(FLAGS_device) == "cuda" ? CudaDeviceName(0) : Machine()}};
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  for (const std::string& text : absl::GetFlag(FLAGS_batches)) {
    int64_t batch = 0;
    if (!absl::SimpleAtoi(text, &batch)) return 2;
    const auto line = troupe::Measure(batch);
    if (!line.ok()) {
      std::cerr << "fused_bench: " << line.status().message() << "\n";
      return 1;
    }
    std::cout << line->dump() << "\n";
  }
  return 0;
}
