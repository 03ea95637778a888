// Runs probes for env_parity.py: one JSON request a line on stdin, such as
//   {"environment": "id: 'Hopper-v5'", "actions": "/tmp/a", "state": [0, 1.25, ...]}
//   {"environment": "id: 'Hopper-v5'", "actions": "/tmp/a", "seed": 3, "continue": true}
//   {"environment": "id: 'Hopper-v5'"}
// The answer is the probe's lines, or the environment's spec where there are no actions, and then
// {"status":"message"}, empty if all went well.
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "actor/env.h"
#include "actor/probe.h"
#include "google/protobuf/text_format.h"
#include "nlohmann/json.hpp"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

using nlohmann::json;

absl::Status PrintSpec(const proto::Environment& environment) {
  const auto env = MakeEnv(environment, DefaultAssetDir());
  if (!env.ok()) return env.status();
  const EnvSpec& spec = (*env)->spec();
  std::cout << json{{"observation_size", spec.observation_size},
                    {"action_size", spec.action_size},
                    {"action_low", spec.action_low},
                    {"action_high", spec.action_high},
                    {"num_choices", spec.num_choices},
                    {"max_episode_steps", spec.max_episode_steps}}
            << "\n";
  return absl::OkStatus();
}

absl::Status Serve(const json& request) {
  ProbeOptions options;
  if (!google::protobuf::TextFormat::ParseFromString(request.at("environment").get<std::string>(),
                                                     &options.environment)) {
    return absl::InvalidArgumentError("the environment does not parse");
  }
  if (!request.contains("actions")) return PrintSpec(options.environment);
  options.asset_dir = DefaultAssetDir();
  options.actions_path = request.at("actions").get<std::string>();
  if (request.contains("state")) options.state = request.at("state").get<std::vector<double>>();
  options.seed = request.value("seed", uint64_t{0});
  options.continue_after_end = request.value("continue", false);
  options.output = &std::cout;
  return RunProbe(options);
}

}  // namespace
}  // namespace troupe

int main() {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("env_parity_server"));
  for (std::string line; std::getline(std::cin, line);) {
    const absl::Status status = troupe::Serve(nlohmann::json::parse(line));
    std::cout << nlohmann::json{{"status", std::string(status.message())}} << std::endl;
  }
  return 0;
}
