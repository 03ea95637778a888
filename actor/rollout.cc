#include "actor/rollout.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "actor/all_finite.h"

namespace troupe {
namespace {

// How often an actor that waits for a policy looks whether more unrolls of the last are wanted.
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(5);

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
      frames_(num_envs_, envs.spec().image_bytes),
      actions_(num_envs_ * action_size_),
      row_actions_(actions_.size()),
      log_probs_(num_envs_),
      memory_(num_envs_ * state_size_),
      next_memory_(memory_.size()),
      versions_(num_envs_),
      open_(num_envs_),
      active_(num_envs_, 1),
      num_active_(num_envs_) {
  waiting_.reserve(num_envs_);
}

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
  frames_.SetDepth(policy_->metadata().encoder.frame_stack());
  envs_.Reset();
  for (int env = 0; env < num_envs_; ++env) {
    Observe(env, /*begins=*/true);
    waiting_.push_back(env);
  }
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
  std::unique_ptr<Policy> next;
  while (next == nullptr && writer_.UnrollRequests(version) == requests_heard_) {
    absl::StatusOr<std::unique_ptr<Policy>> newer = feed_.WaitAndTake(kBetweenLooks);
    if (!newer.ok()) return newer.status();
    if (absl::Status status = writer_.status(); !status.ok()) return status;
    next = *std::move(newer);
  }
  std::fill(active_.begin(), active_.end(), 1);
  num_active_ = num_envs_;
  waiting_.resize(num_envs_);
  std::iota(waiting_.begin(), waiting_.end(), 0);
  return next == nullptr ? absl::OkStatus() : GoOnWith(std::move(next));
}

absl::Status Rollout::GoOnWith(std::unique_ptr<Policy> policy) {
  if (policy->metadata().final_one) return absl::CancelledError("the run is over");
  Use(std::move(policy));
  return absl::OkStatus();
}

absl::Status Rollout::StepOnce() {
  if (!waiting_.empty()) {
    if (absl::Status acted = Act(); !acted.ok()) return acted;
    envs_.Begin(waiting_, actions_);
    waiting_.clear();
  }
  const int64_t before = env_steps_;
  for (const int env : envs_.Finish()) {
    absl::Status appended = envs_.lost()[env] != 0 ? AppendLoss(env) : AppendStep(env);
    if (!appended.ok()) return appended;
    if (active_[env] != 0) waiting_.push_back(env);
  }
  metrics_.env_steps.Increment(static_cast<double>(env_steps_ - before));
  return absl::OkStatus();
}

absl::Status Rollout::Act() {
  Gather();
  absl::Status acted =
      policy_->Sample(batch_.observations, static_cast<int64_t>(waiting_.size()),
                      {absl::MakeSpan(batch_.actions), absl::MakeSpan(batch_.row_actions),
                       absl::MakeSpan(batch_.log_probs)},
                      {batch_.memory, absl::MakeSpan(batch_.next_memory)}, batch_.images);
  if (acted.ok()) Scatter();
  return acted;
}

void Rollout::Gather() {
  const size_t n = waiting_.size();
  batch_.observations.resize(n * observation_size_);
  batch_.images.resize(n * frames_.stack_bytes());
  batch_.actions.resize(n * action_size_);
  batch_.row_actions.resize(batch_.actions.size());
  batch_.log_probs.resize(n);
  batch_.memory.resize(n * state_size_);
  batch_.next_memory.resize(batch_.memory.size());
  for (size_t i = 0; i < n; ++i) {
    const int env = waiting_[i];
    absl::c_copy(Observation(env), batch_.observations.begin() + i * observation_size_);
    absl::c_copy(frames_.stack(env), batch_.images.begin() + i * frames_.stack_bytes());
    absl::c_copy(Memory(memory_, env), batch_.memory.begin() + i * state_size_);
  }
}

void Rollout::Scatter() {
  const uint64_t version = policy_->metadata().version;
  for (size_t i = 0; i < waiting_.size(); ++i) {
    const int env = waiting_[i];
    const auto put = [&](const std::vector<float>& from, int64_t size, std::vector<float>& to) {
      std::copy_n(from.begin() + i * size, size, to.begin() + env * size);
    };
    put(batch_.actions, action_size_, actions_);
    put(batch_.row_actions, action_size_, row_actions_);
    put(batch_.log_probs, 1, log_probs_);
    put(batch_.next_memory, state_size_, next_memory_);
    versions_[env] = version;
  }
}

void Rollout::Observe(int env, bool begins) {
  const Seen seen{Row(envs_.observations(), env), envs_.images(env)};
  absl::c_copy(seen.numbers, Observation(env).begin());
  if (!begins) return frames_.Push(env, seen.images);
  frames_.Begin(env, seen.images);
  const absl::Span<float> memory = Memory(memory_, env);
  std::fill(memory.begin(), memory.end(), 0.0f);
}

absl::Status Rollout::AppendStep(int env) {
  const Seen next{Row(envs_.next_observations(), env), envs_.next_images(env)};
  const float reward = envs_.rewards()[env];
  if (!AllFinite(next.numbers) || !std::isfinite(reward)) {
    return absl::InternalError(
        absl::StrCat(envs_.spec().id, " gave an observation or reward that is not finite after ",
                     env_steps_, " steps"));
  }
  ++env_steps_;
  const Seen acted = Acted(env);
  const PackedStep step{
      .policy_version = versions_[env],
      .observation = acted.numbers,
      .images = acted.images,
      .action = absl::MakeConstSpan(row_actions_).subspan(env * action_size_, action_size_),
      .reward = reward,
      .log_prob = log_probs_[env],
      .recurrent_state = Memory(memory_, env)};
  const absl::StatusOr<uint64_t> number =
      writer_.Append(env, [&](absl::Span<char> row) { packer_.PackStep(step, row); });
  if (!number.ok()) return number.status();
  open_[env] = 1;
  absl::c_copy(Memory(next_memory_, env), Memory(memory_, env).begin());
  const uint32_t flags = (envs_.terminated()[env] != 0 ? kTerminated : 0u) |
                         (envs_.truncated()[env] != 0 ? kTruncated : 0u);
  absl::StatusOr<int64_t> place = PlaceInUnroll(*number);
  if (flags != 0) {
    CountEpisode(env);
    place = AppendFinal(env, next, flags);
    if (!place.ok()) return place.status();
  }
  Observe(env, /*begins=*/flags != 0);
  return unroll_.length > 0 ? CloseUnroll(env, *place) : absl::OkStatus();
}

absl::Status Rollout::AppendLoss(int env) {
  absl::StatusOr<int64_t> place = -1;
  if (open_[env] != 0) place = AppendFinal(env, Acted(env), kTruncated);
  if (!place.ok()) return place.status();
  Observe(env, /*begins=*/true);
  return unroll_.length > 0 && *place >= 0 ? CloseUnroll(env, *place) : absl::OkStatus();
}

absl::StatusOr<int64_t> Rollout::AppendFinal(int env, const Seen& seen, uint32_t flags) {
  const PackedFinal last{.policy_version = versions_[env],
                         .observation = seen.numbers,
                         .images = seen.images,
                         .flags = flags,
                         .recurrent_state = Memory(memory_, env)};
  // It may be the last row that the learner waits for, and the answer a request for more.
  if (unroll_.synchronous) {
    requests_heard_ = writer_.UnrollRequests(policy_->metadata().version);
  }
  const absl::StatusOr<uint64_t> number =
      writer_.Append(env, [&](absl::Span<char> row) { packer_.PackFinal(last, row); });
  if (!number.ok()) return number.status();
  open_[env] = flags == kCut;  // the episode that it shows goes on
  return PlaceInUnroll(*number);
}

// The window's last row shows what the next policy acts on.
absl::Status Rollout::CloseUnroll(int env, int64_t place) {
  if (place == unroll_.length - 1) {
    const absl::StatusOr<int64_t> last = AppendFinal(env, Acted(env), kCut);
    if (!last.ok()) return last.status();
    place = *last;
  }
  if (unroll_.synchronous && place == unroll_.length && active_[env] != 0) {
    active_[env] = 0;
    --num_active_;
  }
  return absl::OkStatus();
}

void Rollout::CountEpisode(int env) {
  ++episodes_;
  metrics_.episodes.Increment();
  metrics_.episode_return.Set(envs_.episode_returns()[env]);
  metrics_.episode_length.Set(static_cast<double>(envs_.episode_lengths()[env]));
}

}  // namespace troupe
