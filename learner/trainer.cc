#include "learner/trainer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/config.h"
#include "common/crc32c.h"

namespace troupe {
namespace {

// How long the loop may be deaf to a stop.
constexpr absl::Duration kPatience = absl::Milliseconds(200);
// Updates from a replica go on for about so long, and at most so many, before rows are taken in,
// and the shards are told.
constexpr absl::Duration kTurn = absl::Milliseconds(10);
constexpr int64_t kMostAtOnce = 64;
constexpr absl::Duration kLastSteps = absl::Seconds(10);
constexpr absl::Duration kFinalSnapshot = absl::Seconds(60);
constexpr char kConfigFile[] = "config.json";

// The warm-up steps are collected, not learned from.
int64_t TargetUpdates(const proto::Config& config) {
  if (config.learner().has_ppo()) return 0;
  const proto::Sac& sac = config.learner().sac();
  const int64_t steps = std::max<int64_t>(config.total_env_steps() - sac.random_steps(), 0);
  return std::llround(static_cast<double>(steps) * sac.updates_per_env_step());
}

// Has a multiple of `interval` been reached since `before`?
bool IsDue(int64_t before, int64_t updates, int64_t interval) {
  return updates / interval > before / interval;
}

std::string EncodeConfig(const proto::Config& config) {
  const nlohmann::json text = {{"run", config.run()}, {"config", PrintConfig(config)}};
  return text.dump(2) + "\n";
}

// The run that a checkpoint belongs to; empty if it does not say.
std::string RunOf(const Checkpoint& checkpoint) {
  const auto file = checkpoint.files.find(kConfigFile);
  if (file == checkpoint.files.end()) return "";
  const auto parsed = nlohmann::json::parse(file->second, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("run") || !parsed["run"].is_string()) return "";
  return parsed["run"].get<std::string>();
}

}  // namespace

absl::StatusOr<RunState> Resume(const CheckpointDirectory& checkpoints, const std::string& run,
                                uint64_t max_epoch, Algorithm& algorithm) {
  RunState state;
  state.version.epoch = max_epoch + 1;
  absl::StatusOr<CheckpointDirectory::Found> found = checkpoints.ReadNewest();
  if (absl::IsNotFound(found.status())) return state;
  if (!found.ok()) return found.status();
  for (const std::string& skipped : found->skipped) {
    spdlog::warn("checkpoint left out: {}", skipped);
  }
  const Checkpoint& checkpoint = found->checkpoint;
  if (const std::string theirs = RunOf(checkpoint); theirs != run) {
    return absl::FailedPreconditionError(
        absl::StrCat(found->path, " is of run '", theirs, "', not of '", run, "'"));
  }
  if (absl::Status status = algorithm.Load(checkpoint.files); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(found->path, ": ", status.message()));
  }
  const auto epoch = checkpoint.counters.find("epoch");
  if (epoch != checkpoint.counters.end()) {
    state.version.epoch = std::max(state.version.epoch, static_cast<uint64_t>(epoch->second) + 1);
  }
  if (const auto steps = checkpoint.counters.find("env_steps");
      steps != checkpoint.counters.end()) {
    state.env_steps = steps->second;
  }
  state.saved_updates = checkpoint.updates;
  spdlog::info("resumed {} at {} updates", found->path, algorithm.updates());
  return state;
}

absl::StatusOr<RunState> ResumeTogether(const CheckpointDirectory& checkpoints,
                                        const std::string& run, uint64_t max_epoch,
                                        RankGroup& ranks, Algorithm& algorithm) {
  const bool is_first = ranks.rank() == 0;
  RunState state;
  if (is_first) {
    const absl::StatusOr<RunState> found = Resume(checkpoints, run, max_epoch, algorithm);
    if (!found.ok()) return found;
    state = *found;
  }
  std::map<std::string, std::string> theirs;
  absl::StatusOr<std::map<std::string, std::string>> files = algorithm.Save();
  if (!files.ok()) return files.status();
  // The same names everywhere, or the algorithms are not the same.
  for (auto& [name, bytes] : *files) {
    absl::StatusOr<std::string> first = ranks.FromFirst(is_first ? bytes : "");
    if (!first.ok()) return first.status();
    theirs.emplace(name, *std::move(first));
  }
  if (is_first) return state;
  if (absl::Status status = algorithm.Load(theirs); !status.ok()) return status;
  if (algorithm.updates() > 0) state.saved_updates = algorithm.updates();
  return state;
}

Trainer::Trainer(const proto::Config& config, const Parts& parts, const RunState& state)
    : config_(config),
      parts_(parts),
      on_policy_(config.learner().has_ppo()),
      target_updates_(TargetUpdates(config)),
      state_(state),
      learning_(on_policy_ || parts.algorithm.updates() > 0),
      learned_env_steps_(state.env_steps),
      logged_(absl::Now()),
      logged_updates_(parts.algorithm.updates()) {}

absl::Status Trainer::Run() {
  absl::Status status = Publish(/*final_one=*/false);
  while (status.ok() && !Complete() && !Stopped()) {
    status = UpdateOnce();
    status.Update(parts_.publisher.status());
  }
  if (!status.ok()) return status;
  if (status = SaveCheckpoint(); !status.ok()) return status;
  return Complete() ? Finish() : Log(/*done=*/false);
}

absl::StatusOr<int64_t> Trainer::Agree(int64_t ready) {
  if (parts_.ranks == nullptr) return ready;
  const absl::StatusOr<int64_t> least = parts_.ranks->Least(parts_.stop.requested() ? -1 : ready);
  if (!least.ok()) return least.status();
  one_stopped_ = *least < 0;
  return std::max<int64_t>(*least, 0);
}

bool Trainer::Stopped() const {
  return parts_.ranks == nullptr ? parts_.stop.requested() : one_stopped_;
}

bool Trainer::Complete() const {
  return on_policy_ ? learned_env_steps_ >= config_.total_env_steps()
                    : parts_.algorithm.updates() >= target_updates_;
}

void Trainer::CountWait(absl::Time begin) {
  const absl::Duration waited = absl::Now() - begin;
  waited_ += waited;
  parts_.log.CountWait(absl::ToDoubleSeconds(waited));
}

absl::StatusOr<WindowBatch> Trainer::NextBatch() {
  const absl::Time begin = absl::Now();
  absl::StatusOr<WindowBatch> batch = parts_.batches.Next(state_.version, begin + kPatience);
  CountWait(begin);
  return batch;
}

int64_t Trainer::UpdatesAtOnce() const {
  const int64_t updates = parts_.algorithm.updates();
  const proto::Learner& learner = config_.learner();
  int64_t most = std::min(kMostAtOnce, target_updates_ - updates);
  for (const int64_t interval : {learner.publish_interval_updates(), learner.log_interval_updates(),
                                 learner.checkpoint_interval_updates()}) {
    most = std::min(most, interval - updates % interval);
  }
  if (seconds_per_update_ == 0) return 1;
  const double fit = absl::ToDoubleSeconds(kTurn) / seconds_per_update_;
  return std::clamp<int64_t>(static_cast<int64_t>(fit), 1, most);
}

absl::StatusOr<int64_t> Trainer::AwaitDraws() {
  Replica& replica = *parts_.replica;
  const absl::Time begin = absl::Now();
  const bool ready = replica.IsReady();
  absl::Status status = replica.Absorb(ready ? absl::InfinitePast() : begin + kPatience);
  const FollowStats stats = replica.stats();
  const uint64_t missed = stats.rows_missed;
  parts_.log.NoteReplica(replica.rows(), stats.rows_behind,
                         missed - std::exchange(counted_missed_, missed));
  if (status.ok() && ready && admitted_ == 0) {
    const absl::StatusOr<int64_t> batches = AdmitDraws(begin + kTurn);
    if (batches.ok()) admitted_ = *batches;
    status = batches.status();
  }
  CountWait(begin);
  if (!status.ok()) return status;
  const absl::StatusOr<int64_t> agreed = Agree(admitted_);
  if (agreed.ok()) admitted_ -= *agreed;
  return agreed;
}

absl::StatusOr<int64_t> Trainer::AdmitDraws(absl::Time deadline) {
  // Rank 0 asks for all of them.
  if (!IsFirst()) return kMostAtOnce;
  const absl::StatusOr<int64_t> batches = parts_.replay.AdmitDraws(UpdatesAtOnce(), deadline);
  if (absl::IsDeadlineExceeded(batches.status())) return 0;
  return batches;
}

absl::Status Trainer::EndWarmup() {
  learning_ = true;
  spdlog::info("warm-up is over at {} env steps", parts_.replay.counts().env_steps);
  return Publish(/*final_one=*/false);
}

absl::Status Trainer::UpdateOnce() {
  Algorithm& algorithm = parts_.algorithm;
  if (parts_.replica != nullptr) {
    const absl::StatusOr<int64_t> draws = AwaitDraws();
    if (!draws.ok() || *draws == 0) return draws.status();
    return Learn([&](int64_t steps) { return algorithm.UpdateFromReplica(*draws, steps); });
  }
  return UpdateFromShards();
}

absl::Status Trainer::UpdateFromShards() {
  if (!batch_) {
    absl::StatusOr<WindowBatch> batch = NextBatch();
    if (batch.ok()) {
      batch_ = *std::move(batch);
    } else if (!absl::IsDeadlineExceeded(batch.status())) {
      return batch.status();
    }
  }
  const absl::StatusOr<int64_t> agreed = Agree(batch_ ? 1 : 0);
  if (!agreed.ok() || *agreed == 0) return agreed.status();
  const WindowBatch batch = *std::exchange(batch_, std::nullopt);
  if (on_policy_ && IsFirst()) lag_.Add(batch, state_.version);
  const absl::Status status =
      Learn([&](int64_t steps) { return parts_.algorithm.Update(batch, steps); });
  const std::vector<float> priorities = parts_.algorithm.Priorities();
  if (!status.ok() || priorities.empty()) return status;
  return parts_.replay.UpdatePriorities(batch.buffer->shards, batch.buffer->row_ids, priorities);
}

absl::StatusOr<int64_t> Trainer::EnvSteps() {
  const auto known = static_cast<int64_t>(parts_.replay.counts().env_steps);
  if (parts_.ranks == nullptr || !on_policy_) return known;
  const absl::StatusOr<int64_t> least = parts_.ranks->Least(-known);
  if (!least.ok()) return least;
  return -*least;
}

absl::Status Trainer::Learn(absl::FunctionRef<absl::Status(int64_t)> update) {
  absl::Status status = learning_ ? absl::OkStatus() : EndWarmup();
  if (!status.ok()) return status;
  const absl::Time begin = absl::Now();
  const int64_t before = parts_.algorithm.updates();
  const absl::StatusOr<int64_t> env_steps = EnvSteps();
  if (!env_steps.ok()) return env_steps.status();
  learned_env_steps_ = *env_steps;
  if (status = update(learned_env_steps_); !status.ok()) return status;
  if (std::exchange(policy_taken_, false)) {
    if (status = Publish(/*final_one=*/false); !status.ok()) return status;
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const int64_t done = parts_.algorithm.updates() - before;
  seconds_per_update_ = seconds / static_cast<double>(std::max<int64_t>(done, 1));
  parts_.log.CountUpdates(done, seconds);
  return DoWhatIsDue(before);
}

absl::Status Trainer::DoWhatIsDue(int64_t before) {
  const int64_t updates = parts_.algorithm.updates();
  const proto::Learner& learner = config_.learner();
  absl::Status status;
  // First, for actors may wait for it; the last one goes out with the end of the run.
  if (!Complete() && (on_policy_ || IsDue(before, updates, learner.publish_interval_updates()))) {
    policy_taken_ = parts_.algorithm.TakePolicy();
    if (!policy_taken_) status = Publish(/*final_one=*/false);
  }
  if (status.ok() && IsDue(before, updates, learner.log_interval_updates())) {
    status = Log(/*done=*/false);
  }
  if (status.ok() && IsDue(before, updates, learner.checkpoint_interval_updates())) {
    status = SaveCheckpoint();
  }
  return status;
}

absl::Status Trainer::AwaitLastSteps() {
  const absl::Time deadline = absl::Now() + kLastSteps;
  while (static_cast<int64_t>(parts_.replay.counts().env_steps) < config_.total_env_steps() &&
         !parts_.stop.requested() && absl::Now() < deadline) {
    const absl::Status status = parts_.replica != nullptr
                                    ? parts_.replica->Absorb(absl::Now() + kPatience)
                                    : NextBatch().status();
    if (!status.ok() && !absl::IsDeadlineExceeded(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status Trainer::Finish() {
  if (!IsFirst()) return Log(/*done=*/true);
  absl::Status status = AwaitLastSteps();
  if (status.ok()) status = Publish(/*final_one=*/true);
  if (status.ok()) {
    status = parts_.publisher.WaitPublished(state_.version.Packed(), absl::Now() + kFinalSnapshot);
  }
  if (status.ok()) status = SaveLastPolicy();
  if (status.ok()) status = Log(/*done=*/true);
  return status;
}

absl::Status Trainer::Publish(bool final_one) {
  if (!IsFirst()) return absl::OkStatus();
  ++state_.version.counter;
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->run = config_.run();
  snapshot->version = state_.version.Packed();
  snapshot->created_unix_ns = absl::ToUnixNanos(absl::Now());
  absl::StatusOr<std::string> image = parts_.algorithm.EncodePolicy(
      {.run = config_.run(),
       .version = snapshot->version,
       .env_steps = static_cast<int64_t>(parts_.replay.counts().env_steps),
       .warmup = !learning_,
       .final_one = final_one});
  if (!image.ok()) return image.status();
  snapshot->image = *std::move(image);
  snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
  parts_.log.CountPublished(snapshot->version);
  published_ = snapshot;
  return parts_.publisher.Publish(std::move(snapshot));
}

absl::Status Trainer::SaveCheckpoint() {
  const int64_t updates = parts_.algorithm.updates();
  if (updates == 0 || updates == state_.saved_updates) return absl::OkStatus();
  if (absl::Status status = CheckFinite(); !status.ok()) return status;
  absl::StatusOr<std::map<std::string, std::string>> files = parts_.algorithm.Save();
  if (!files.ok()) return files.status();
  if (absl::Status status = CheckSame(*files); !status.ok()) return status;
  if (IsFirst()) {
    if (absl::Status status = WriteCheckpoint(*std::move(files)); !status.ok()) return status;
    parts_.log.CountCheckpoint();
  }
  state_.saved_updates = updates;
  return absl::OkStatus();
}

absl::Status Trainer::SaveLastPolicy() {
  if (parts_.algorithm.updates() == 0) return absl::OkStatus();
  absl::StatusOr<std::map<std::string, std::string>> files = parts_.algorithm.Save();
  return files.ok() ? WriteCheckpoint(*std::move(files)) : files.status();
}

absl::Status Trainer::WriteCheckpoint(std::map<std::string, std::string> files) {
  files.emplace(kConfigFile, EncodeConfig(config_));
  if (published_ != nullptr) files.emplace(kPolicyFile, published_->image);
  return parts_.checkpoints.Write(
      {.updates = parts_.algorithm.updates(),
       .counters = {{"env_steps", static_cast<int64_t>(parts_.replay.counts().env_steps)},
                    {"epoch", static_cast<int64_t>(state_.version.epoch)},
                    {"version_counter", static_cast<int64_t>(state_.version.counter)}},
       .files = std::move(files)});
}

absl::Status Trainer::CheckSame(const std::map<std::string, std::string>& files) {
  if (parts_.ranks == nullptr) return absl::OkStatus();
  uint32_t digest = 0;
  for (const auto& [name, bytes] : files) digest = Crc32c(digest, bytes.data(), bytes.size());
  const absl::StatusOr<int64_t> least = parts_.ranks->Least(digest);
  if (!least.ok()) return least.status();
  const absl::StatusOr<int64_t> greatest = parts_.ranks->Least(-int64_t{digest});
  if (!greatest.ok()) return greatest.status();
  if (*least == -*greatest) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("at update ", parts_.algorithm.updates(),
                                          " the states of the ranks are not the same"));
}

absl::Status Trainer::CheckFinite() const {
  for (const auto& [name, value] : parts_.algorithm.Statistics()) {
    if (!std::isfinite(value)) {
      return absl::InternalError(
          absl::StrCat(name, " is ", value, " at update ", parts_.algorithm.updates(),
                       ": training has diverged; the last checkpoint is of update ",
                       std::max<int64_t>(state_.saved_updates, 0)));
    }
  }
  return absl::OkStatus();
}

absl::Status Trainer::Log(bool done) {
  const absl::Time now = absl::Now();
  const int64_t updates = parts_.algorithm.updates();
  const int64_t too_old = parts_.batches.steps_too_old();
  parts_.log.CountTooOld(too_old - std::exchange(counted_too_old_, too_old));
  const double seconds = std::max(absl::ToDoubleSeconds(now - logged_), 1e-9);
  std::map<std::string, double> statistics = parts_.algorithm.Statistics();
  statistics.merge(lag_.Statistics());
  lag_.Clear();
  absl::Status status = parts_.log.Write(
      {.env_steps = static_cast<int64_t>(parts_.replay.counts().env_steps),
       .updates = updates,
       .policy_version = state_.version.Packed(),
       .statistics = std::move(statistics),
       .updates_per_second = static_cast<double>(updates - logged_updates_) / seconds,
       .wait_seconds = absl::ToDoubleSeconds(waited_),
       .done = done});
  logged_ = now;
  logged_updates_ = updates;
  waited_ = absl::ZeroDuration();
  if (status.ok()) status = CheckFinite();
  return status;
}

}  // namespace troupe
