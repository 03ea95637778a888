// Steps per second of the vector environment with random actions, as a line of bench.jsonl.
//   env_bench [--id HalfCheetah-v5] [--num_envs 64] [--num_threads 2] [--seconds 5]
//             [--gymnasium [--module M] [--envs_per_child 8]]: in Python instead
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "actor/env.h"
#include "actor/vector_env.h"
#include "nlohmann/json.hpp"
#include "tests/bench/bench_line.h"

ABSL_FLAG(std::string, id, "HalfCheetah-v5", "environment");
ABSL_FLAG(int, num_envs, 64, "environments stepped together");
ABSL_FLAG(int, num_threads, 2, "threads that step them");
ABSL_FLAG(bool, gymnasium, false, "the environment is in Python, in child processes");
ABSL_FLAG(std::string, module, "", "with --gymnasium: module to import");
ABSL_FLAG(int, envs_per_child, 8, "with --gymnasium: environments of one child");
ABSL_FLAG(double, seconds, 5, "how long to measure, after a fifth of it to warm up");

namespace troupe {
namespace {

// Batches of actions, drawn before the clock starts; many, for what a step costs depends on them.
std::vector<std::vector<float>> RandomActions(const VectorEnv& envs) {
  constexpr int kBatches = 1024;
  const EnvSpec& spec = envs.spec();
  std::mt19937 engine(1);
  std::uniform_real_distribution<double> unit;
  std::vector<std::vector<float>> batches(kBatches);
  for (auto& batch : batches) {
    for (int i = 0; i < envs.num_envs() * spec.action_size; ++i) {
      const int64_t j = i % spec.action_size;
      const double u = unit(engine);
      batch.push_back(static_cast<float>(!spec.num_choices.empty()
                                             ? static_cast<int>(u * spec.num_choices[j])
                                             : spec.action_low[j] +
                                                   u * (spec.action_high[j] - spec.action_low[j])));
    }
  }
  return batches;
}

// Steps until `duration` is over, each environment as soon as it is done.
// Unit: environment steps per second.
double StepsPerSecond(VectorEnv* envs, const std::vector<std::vector<float>>& actions,
                      absl::Duration duration) {
  std::vector<int> waiting(envs->num_envs());
  std::iota(waiting.begin(), waiting.end(), 0);
  const absl::Time start = absl::Now();
  int64_t rounds = 0, steps = 0;
  while (absl::Now() - start < duration) {
    envs->Begin(waiting, actions[rounds++ % actions.size()]);
    const absl::Span<const int> done = envs->Finish();
    waiting.assign(done.begin(), done.end());
    steps += static_cast<int64_t>(waiting.size());
  }
  const double rate = static_cast<double>(steps) / absl::ToDoubleSeconds(absl::Now() - start);
  while (static_cast<int>(waiting.size()) < envs->num_envs()) {
    for (const int env : envs->Finish()) waiting.push_back(env);
  }
  return rate;
}

proto::Environment EnvironmentConfig() {
  proto::Environment config;
  if (!absl::GetFlag(FLAGS_gymnasium)) {
    config.set_id(absl::GetFlag(FLAGS_id));
    return config;
  }
  proto::Gymnasium& gymnasium = *config.mutable_gymnasium();
  gymnasium.set_id(absl::GetFlag(FLAGS_id));
  gymnasium.set_module(absl::GetFlag(FLAGS_module));
  gymnasium.set_envs_per_child(absl::GetFlag(FLAGS_envs_per_child));
  return config;
}

int Run() {
  const proto::Environment config = EnvironmentConfig();
  auto envs = VectorEnv::Make(config, DefaultAssetDir(), absl::GetFlag(FLAGS_num_envs),
                              absl::GetFlag(FLAGS_num_threads), 1);
  if (!envs.ok()) {
    std::cerr << "env_bench: " << envs.status().message() << "\n";
    return 2;
  }
  const auto actions = RandomActions(**envs);
  const absl::Duration duration = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  (*envs)->Reset();
  StepsPerSecond(envs->get(), actions, duration / 5);
  const double value = StepsPerSecond(envs->get(), actions, duration);
  std::cout << nlohmann::json{{"name", config.has_gymnasium() ? "actor.gymnasium_envs"
                                                              : "actor.vector_env"},
                              {"case", absl::StrCat(absl::GetFlag(FLAGS_id), "/",
                                                    absl::GetFlag(FLAGS_num_envs))},
                              {"value", value},
                              {"unit", "steps/s"},
                              {"threads", absl::GetFlag(FLAGS_num_threads)},
                              {"machine", Machine()}}
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return troupe::Run();
}
