#include "actor/rollout.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

bool AllFinite(absl::Span<const float> values) {
  float sum = 0;  // of zeros; an infinity or NaN times 0 is NaN
  for (const float value : values) sum += value * 0.0f;
  return sum == 0.0f;
}

}  // namespace

RolloutMetrics::RolloutMetrics(Metrics& metrics)
    : env_steps(metrics.AddCounter("troupe_actor_env_steps_total", "Environment steps taken.")),
      episodes(metrics.AddCounter("troupe_actor_episodes_total", "Episodes that ended.")),
      policies(metrics.AddCounter("troupe_actor_policies_total", "Policies taken into use.")),
      episode_return(metrics.AddGauge("troupe_actor_episode_return",
                                      "Undiscounted return of the last episode that ended.")),
      episode_length(metrics.AddGauge("troupe_actor_episode_length_steps",
                                      "Length of the last episode that ended.")),
      policy_version(metrics.AddGauge("troupe_actor_policy_version",
                                      "Counter part of the version of the policy in use.")) {}

Rollout::Rollout(VectorEnv& envs, const RowPacker& packer, RowWriter& writer, PolicyFeed& feed,
                 RolloutMetrics& metrics, uint64_t seed)
    : envs_(envs),
      packer_(packer),
      writer_(writer),
      feed_(feed),
      metrics_(metrics),
      seed_(seed),
      num_envs_(envs.num_envs()),
      observation_size_(envs.spec().observation_size),
      action_size_(envs.spec().action_size),
      observations_(num_envs_ * observation_size_),
      actions_(num_envs_ * action_size_) {}

void Rollout::Use(std::unique_ptr<Policy> policy) {
  policy_ = std::move(policy);
  const uint64_t version = policy_->metadata().version;
  policy_->Seed(absl::HashOf(seed_, version));
  metrics_.policies.Increment();
  metrics_.policy_version.Set(static_cast<double>(PolicyVersion::Unpack(version).counter));
}

absl::Status Rollout::Run() {
  absl::StatusOr<std::unique_ptr<Policy>> first = feed_.WaitAndTake();
  if (absl::IsCancelled(first.status())) return absl::OkStatus();
  if (!first.ok()) return first.status();
  Use(*std::move(first));
  envs_.Reset();
  while (!stop_.load(std::memory_order_relaxed)) {
    if (std::unique_ptr<Policy> newer = feed_.Take()) Use(std::move(newer));
    absl::Status stepped = StepOnce();
    if (absl::IsCancelled(stepped)) return absl::OkStatus();
    if (!stepped.ok()) return stepped;
  }
  return absl::OkStatus();
}

absl::Status Rollout::StepOnce() {
  std::copy(envs_.observations().begin(), envs_.observations().end(), observations_.begin());
  absl::Status acted =
      policy_->Act(observations_, num_envs_, /*deterministic=*/false, absl::MakeSpan(actions_));
  if (!acted.ok()) return acted;
  envs_.Step(actions_);
  if (!AllFinite(envs_.next_observations()) || !AllFinite(envs_.rewards())) {
    return absl::InternalError(absl::StrCat(envs_.spec().id,
                                            " gave an observation or reward that is not finite"
                                            " after ",
                                            env_steps_, " steps"));
  }
  metrics_.env_steps.Increment(static_cast<double>(num_envs_));
  env_steps_ += num_envs_;
  return AppendRows();
}

absl::Status Rollout::AppendRows() {
  for (int64_t env = 0; env < num_envs_; ++env) {
    if (absl::Status appended = AppendRow(env); !appended.ok()) return appended;
  }
  return absl::OkStatus();
}

absl::Status Rollout::AppendRow(int64_t env) {
  const uint64_t version = policy_->metadata().version;
  const auto observation =
      absl::MakeConstSpan(observations_).subspan(env * observation_size_, observation_size_);
  const auto action = absl::MakeConstSpan(actions_).subspan(env * action_size_, action_size_);
  absl::Status appended = writer_.Append(env, [&](absl::Span<char> row) {
    packer_.PackStep(version, observation, action, envs_.rewards()[env], row);
  });
  const bool terminated = envs_.terminated()[env] != 0;
  const bool truncated = envs_.truncated()[env] != 0;
  if (!appended.ok() || !(terminated || truncated)) return appended;
  CountEpisode(env);
  const auto last = envs_.next_observations().subspan(env * observation_size_, observation_size_);
  return writer_.Append(env, [&](absl::Span<char> row) {
    packer_.PackFinal(version, last, terminated, truncated, row);
  });
}

void Rollout::CountEpisode(int64_t env) {
  ++episodes_;
  metrics_.episodes.Increment();
  metrics_.episode_return.Set(envs_.episode_returns()[env]);
  metrics_.episode_length.Set(static_cast<double>(envs_.episode_lengths()[env]));
}

}  // namespace troupe
