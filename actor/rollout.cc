#include "actor/rollout.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// How often an actor that waits for a policy looks whether more unrolls of the last are wanted.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(5);

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
                                      "Counter part of the version of the policy in use.")) {
  episode_return.Set(std::nan(""));  // until there is one
  episode_length.Set(std::nan(""));
}

Rollout::Rollout(VectorEnv& envs, const RowPacker& packer, RowWriter& writer, PolicyFeed& feed,
                 RolloutMetrics& metrics, uint64_t seed, const UnrollRule& unroll)
    : envs_(envs),
      packer_(packer),
      writer_(writer),
      feed_(feed),
      metrics_(metrics),
      seed_(seed),
      num_envs_(envs.num_envs()),
      observation_size_(envs.spec().observation_size),
      action_size_(envs.spec().action_size),
      state_size_(packer.recurrent_state_size()),
      unroll_(unroll),
      observations_(num_envs_ * observation_size_),
      actions_(num_envs_ * action_size_),
      row_actions_(actions_.size()),
      log_probs_(num_envs_),
      memory_(num_envs_ * state_size_),
      next_memory_(memory_.size()),
      active_(num_envs_, 1),
      num_active_(num_envs_) {}

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
  if ((*first)->metadata().final_one) return absl::OkStatus();
  Use(*std::move(first));
  envs_.Reset();
  while (!stop_.load(std::memory_order_relaxed)) {
    absl::Status status = ChangePolicy();
    if (status.ok()) status = StepOnce();
    if (absl::IsCancelled(status)) return absl::OkStatus();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Rollout::ChangePolicy() {
  if (unroll_.synchronous) return num_active_ > 0 ? absl::OkStatus() : AwaitNextPolicy();
  std::unique_ptr<Policy> newer = feed_.Take();
  return newer == nullptr ? absl::OkStatus() : GoOnWith(std::move(newer));
}

absl::Status Rollout::AwaitNextPolicy() {
  if (absl::Status sent = writer_.SendNow(); !sent.ok()) return sent;
  const uint64_t version = policy_->metadata().version;
  const int64_t heard = writer_.UnrollRequests(version);
  std::unique_ptr<Policy> next;
  while (next == nullptr && writer_.UnrollRequests(version) == heard) {
    absl::StatusOr<std::unique_ptr<Policy>> newer = feed_.WaitAndTake(kBetweenLooks);
    if (!newer.ok()) return newer.status();
    if (absl::Status status = writer_.status(); !status.ok()) return status;
    next = *std::move(newer);
  }
  std::fill(active_.begin(), active_.end(), 1);
  num_active_ = num_envs_;
  return next == nullptr ? absl::OkStatus() : GoOnWith(std::move(next));
}

absl::Status Rollout::GoOnWith(std::unique_ptr<Policy> policy) {
  if (policy->metadata().final_one) return absl::CancelledError("the run is over");
  Use(std::move(policy));
  return absl::OkStatus();
}

absl::Status Rollout::StepOnce() {
  std::copy(envs_.observations().begin(), envs_.observations().end(), observations_.begin());
  absl::Status acted = policy_->Sample(
      observations_, num_envs_,
      {absl::MakeSpan(actions_), absl::MakeSpan(row_actions_), absl::MakeSpan(log_probs_)},
      {memory_, absl::MakeSpan(next_memory_)});
  if (!acted.ok()) return acted;
  envs_.Step(actions_, active_);
  if (!AllFinite(envs_.next_observations()) || !AllFinite(envs_.rewards())) {
    return absl::InternalError(absl::StrCat(envs_.spec().id,
                                            " gave an observation or reward that is not finite"
                                            " after ",
                                            env_steps_, " steps"));
  }
  metrics_.env_steps.Increment(static_cast<double>(num_active_));
  env_steps_ += num_active_;
  return AppendRows();
}

absl::Status Rollout::AppendRows() {
  for (int64_t env = 0; env < num_envs_; ++env) {
    if (active_[env] == 0) continue;
    if (absl::Status appended = AppendStep(env); !appended.ok()) return appended;
  }
  return absl::OkStatus();
}

absl::Status Rollout::AppendStep(int64_t env) {
  const PackedStep step{
      .policy_version = policy_->metadata().version,
      .observation = Observation(observations_, env),
      .action = absl::MakeConstSpan(row_actions_).subspan(env * action_size_, action_size_),
      .reward = envs_.rewards()[env],
      .log_prob = log_probs_[env],
      .recurrent_state = Memory(memory_, env)};
  const absl::StatusOr<uint64_t> number =
      writer_.Append(env, [&](absl::Span<char> row) { packer_.PackStep(step, row); });
  if (!number.ok()) return number.status();
  const absl::Span<float> memory = Memory(memory_, env);
  absl::c_copy(Memory(next_memory_, env), memory.begin());
  const uint32_t flags = (envs_.terminated()[env] != 0 ? kTerminated : 0u) |
                         (envs_.truncated()[env] != 0 ? kTruncated : 0u);
  absl::StatusOr<int64_t> place = PlaceInWindow(*number);
  if (flags != 0) {
    CountEpisode(env);
    place = AppendFinal(env, Observation(envs_.next_observations(), env), flags);
    if (!place.ok()) return place.status();
    std::fill(memory.begin(), memory.end(), 0.0f);
  }
  return unroll_.length > 0 ? CloseUnroll(env, *place) : absl::OkStatus();
}

absl::StatusOr<int64_t> Rollout::AppendFinal(int64_t env, absl::Span<const float> observation,
                                             uint32_t flags) {
  const PackedFinal last{.policy_version = policy_->metadata().version,
                         .observation = observation,
                         .flags = flags,
                         .recurrent_state = Memory(memory_, env)};
  const absl::StatusOr<uint64_t> number =
      writer_.Append(env, [&](absl::Span<char> row) { packer_.PackFinal(last, row); });
  if (!number.ok()) return number.status();
  return PlaceInWindow(*number);
}

absl::Status Rollout::CloseUnroll(int64_t env, int64_t place) {
  if (place == unroll_.length - 1) {
    const absl::StatusOr<int64_t> last =
        AppendFinal(env, Observation(envs_.observations(), env), kCut);
    if (!last.ok()) return last.status();
    place = *last;
  }
  if (unroll_.synchronous && place == unroll_.length) {
    active_[env] = 0;
    --num_active_;
  }
  return absl::OkStatus();
}

void Rollout::CountEpisode(int64_t env) {
  ++episodes_;
  metrics_.episodes.Increment();
  metrics_.episode_return.Set(envs_.episode_returns()[env]);
  metrics_.episode_length.Set(static_cast<double>(envs_.episode_lengths()[env]));
}

}  // namespace troupe
