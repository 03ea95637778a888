#include "actor/run_evaluator.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "actor/env.h"
#include "actor/evaluation_log.h"
#include "actor/evaluator.h"
#include "actor/policy_feed.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

// Keeps the seeds of evaluations apart from those of actors.
constexpr uint64_t kSeedOffset = uint64_t{0x45564131} << 32;

absl::StatusOr<std::vector<std::unique_ptr<Env>>> MakeEnvs(const EvaluatorOptions& options) {
  std::vector<std::unique_ptr<Env>> envs;
  const int64_t num_envs = std::min(options.evaluator.num_envs(), options.evaluator.episodes());
  for (int64_t i = 0; i < num_envs; ++i) {
    auto env = MakeEnv(options.environment, options.asset_dir);
    if (!env.ok()) return env.status();
    envs.push_back(*std::move(env));
  }
  return envs;
}

absl::Status EvaluateUntilOver(const EvaluatorOptions& options, Evaluator& evaluator,
                               EvaluationLog& log, PolicyFeed& feed, const StopToken& stop) {
  int64_t due = 0;  // env steps of the run
  while (true) {
    absl::StatusOr<std::unique_ptr<Policy>> policy = feed.WaitAndTake();
    if (!policy.ok()) return policy.status();
    const PolicyMetadata& metadata = (*policy)->metadata();
    if (metadata.env_steps < due && !metadata.final_one) continue;
    absl::StatusOr<EpisodeResults> results = evaluator.Play(**policy, options.evaluator.episodes(),
                                                            [&stop] { return stop.requested(); });
    if (!results.ok()) return results.status();
    spdlog::info("return {:.1f} +- {:.1f} over {} episodes at {} steps", Mean(results->returns),
                 StandardDeviation(results->returns), results->returns.size(), metadata.env_steps);
    if (absl::Status status = log.Write(metadata, *results); !status.ok()) return status;
    if (metadata.final_one) return absl::OkStatus();
    due = metadata.env_steps + options.evaluator.interval_env_steps();
  }
}

}  // namespace

absl::Status RunEvaluator(const EvaluatorOptions& options, StopToken& stop, Metrics& metrics) {
  auto envs = MakeEnvs(options);
  if (!envs.ok()) return envs.status();
  const EnvSpec spec = envs->front()->spec();
  auto log = EvaluationLog::Create(options.output_dir, metrics);
  if (!log.ok()) return log.status();
  auto subscriber = SnapshotSubscriber::Create(options.snapshots, /*preferred_shard=*/0);
  if (!subscriber.ok()) return subscriber.status();
  Evaluator evaluator(*std::move(envs), options.seed + kSeedOffset);
  PolicyFeed feed(**subscriber, spec, [] {});
  std::thread ender([&] {
    stop.Wait();
    feed.Stop();
  });
  absl::Status status = EvaluateUntilOver(options, evaluator, **log, feed, stop);
  stop.Request();
  ender.join();
  return absl::IsCancelled(status) ? absl::OkStatus() : status;
}

}  // namespace troupe
