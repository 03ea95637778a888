#include "actor/run_evaluator.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "actor/env.h"
#include "actor/evaluation_log.h"
#include "actor/evaluator.h"
#include "actor/policy_feed.h"
#include "common/checkpoint.h"
#include "common/policy.h"
#include "common/version.h"
#include "spdlog/spdlog.h"

namespace troupe {
namespace {

// Keeps the seeds of evaluations apart from those of actors.
constexpr uint64_t kSeedOffset = uint64_t{0x45564131} << 32;

// Beside a process at 0 the kernel gives a tenth of a core to one that is so nice.
constexpr int kMoreNice = 10;
// After an evaluation there is none for so many times as long, but for that of the last policy.
constexpr int kRest = 3;

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
  absl::Time rested = absl::InfinitePast();
  while (true) {
    absl::StatusOr<std::unique_ptr<Policy>> policy = feed.WaitAndTake();
    if (!policy.ok()) return policy.status();
    const PolicyMetadata& metadata = (*policy)->metadata();
    const absl::Time begin = absl::Now();
    const bool is_due = metadata.env_steps >= due && begin >= rested;
    if (!is_due && !metadata.final_one) continue;
    absl::StatusOr<EpisodeResults> results = evaluator.Play(**policy, options.evaluator.episodes(),
                                                            [&stop] { return stop.requested(); });
    if (!results.ok()) return results.status();
    spdlog::info("return {:.1f} +- {:.1f} over {} episodes at {} steps", Mean(results->returns),
                 StandardDeviation(results->returns), results->returns.size(), metadata.env_steps);
    if (absl::Status status = log.Write(metadata, *results); !status.ok()) return status;
    if (metadata.final_one) return absl::OkStatus();
    due = metadata.env_steps + options.evaluator.interval_env_steps();
    const absl::Time end = absl::Now();
    rested = end + kRest * (end - begin);
  }
}

// Lets this thread, and those that it starts, take a core from others only where one is left over:
// a fast run would evaluate as many steps as it trains on, and nobody waits for them before its
// end.
void GiveWay() {
  errno = 0;
  const int now = getpriority(PRIO_PROCESS, 0);
  if (errno == 0) setpriority(PRIO_PROCESS, 0, now + kMoreNice);
}

namespace fs = std::filesystem;

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat("--checkpoint: ", path, " is no folder"));
  }
  if (fs::exists(fs::path(path) / "checkpoint.json", error)) {
    return CheckpointDirectory::ReadOne(path);
  }
  const fs::path in_run = fs::path(path) / "checkpoints";
  const CheckpointDirectory directory(fs::is_directory(in_run, error) ? in_run.string() : path, 1);
  absl::StatusOr<CheckpointDirectory::Found> found = directory.ReadNewest();
  if (!found.ok()) return found.status();
  for (const std::string& why : found->skipped) spdlog::warn("passed over a checkpoint: {}", why);
  return std::move(found->checkpoint);
}

absl::StatusOr<std::unique_ptr<Policy>> PolicyOfCheckpoint(const std::string& path) {
  absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(path);
  if (!checkpoint.ok()) return checkpoint.status();
  const auto file = checkpoint->files.find(kPolicyFile);
  if (file != checkpoint->files.end()) return Policy::FromImage(file->second);
  return absl::FailedPreconditionError(absl::StrCat(
      "the checkpoint in ", path, " has no ", kPolicyFile, ": an older learner has written it"));
}

absl::StatusOr<std::unique_ptr<Policy>> NewestPolicy(const SnapshotClientOptions& options,
                                                     absl::Duration patience,
                                                     const StopToken& stop) {
  auto subscriber = SnapshotSubscriber::Create(options, /*preferred_shard=*/0);
  if (!subscriber.ok()) return subscriber.status();
  absl::Notification done;
  std::thread ender([&] {
    while (!done.WaitForNotificationWithTimeout(absl::Milliseconds(20))) {
      if (stop.requested()) return (*subscriber)->Stop();
    }
  });
  const absl::StatusOr<SnapshotPtr> snapshot = (*subscriber)->WaitNewer(0, absl::Now() + patience);
  done.Notify();
  ender.join();
  if (!snapshot.ok()) return snapshot.status();
  return Policy::FromSnapshot(**snapshot);
}

}  // namespace

absl::Status EvaluateOnce(const EvaluatorOptions& options, const EvaluateOnceOptions& once,
                          const StopToken& stop, std::ostream& out) {
  absl::StatusOr<std::unique_ptr<Policy>> policy =
      once.checkpoint.empty() ? NewestPolicy(options.snapshots, once.patience, stop)
                              : PolicyOfCheckpoint(once.checkpoint);
  if (!policy.ok()) return policy.status();
  auto envs = MakeEnvs(options);
  if (!envs.ok()) return envs.status();
  const PolicyMetadata& metadata = (*policy)->metadata();
  if (absl::Status fits = CheckFits(metadata, envs->front()->spec()); !fits.ok()) return fits;
  Evaluator evaluator(*std::move(envs), options.seed + kSeedOffset);
  absl::StatusOr<EpisodeResults> results =
      evaluator.Play(**policy, options.evaluator.episodes(), [&stop] { return stop.requested(); });
  if (!results.ok())
    return absl::IsCancelled(results.status()) ? absl::OkStatus() : results.status();
  out << absl::StrFormat("return %.2f +- %.2f over %d episodes of %s\n", Mean(results->returns),
                         StandardDeviation(results->returns), results->returns.size(),
                         options.environment.id())
      << absl::StrFormat("policy %d of run '%s', after %d environment steps and %d updates%s\n",
                         PolicyVersion::Unpack(metadata.version).counter, metadata.run,
                         metadata.env_steps, metadata.updates,
                         metadata.warmup ? " (not trained yet)" : "")
      << std::flush;
  return absl::OkStatus();
}

absl::Status RunEvaluator(const EvaluatorOptions& options, StopToken& stop, Metrics& metrics) {
  GiveWay();
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
