#include "learner/progress_log.h"

#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/json_lines.h"
#include "common/version.h"

namespace troupe {
namespace {

double UnixTime() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

constexpr std::pair<const char*, const char*> kStatistics[] = {
    {"q_loss", "Objective of the critics, summed over them."},
    {"q_mean", "Mean of the critics' values of a batch."},
    {"actor_loss", "Objective of the policy."},
    {"alpha", "Temperature."},
    {"entropy", "Entropy of the policy, in nats."},
    {"kl", "KL divergence of the policy from the one that drew the actions, in nats."},
    {"clip_fraction", "Part of the steps whose ratio is beyond clip_epsilon."},
    {"policy_loss", "Less the surrogate of the policy."},
    {"value_loss", "Objective of the value function."},
    {"learning_rate", "Learning rate of policy and value function."},
    {"policy_lag_min", "Versions by which the newest step of the batches is behind the learner."},
    {"policy_lag_max", "Versions by which the oldest step of the batches is behind the learner."},
    {"explained_variance", "Part of the value targets' variance that the values explained."}};

}  // namespace

absl::StatusOr<std::unique_ptr<ProgressLog>> ProgressLog::Create(const std::string& run_dir,
                                                                 Metrics& metrics) {
  std::error_code error;
  std::filesystem::create_directories(run_dir, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make --run_dir ", run_dir));
  }
  absl::StatusOr<std::unique_ptr<EventWriter>> events =
      EventWriter::Create(absl::StrCat(run_dir, "/tensorboard"));
  if (!events.ok()) return events.status();
  metrics.AddDisk(run_dir);
  return std::unique_ptr<ProgressLog>(
      new ProgressLog(absl::StrCat(run_dir, "/learner.jsonl"), *std::move(events), metrics));
}

ProgressLog::ProgressLog(std::string path, std::unique_ptr<EventWriter> events, Metrics& metrics)
    : path_(std::move(path)),
      events_(std::move(events)),
      updates_(metrics.AddCounter("troupe_learner_updates_total", "Gradient steps done.")),
      wait_seconds_(metrics.AddCounter("troupe_learner_batch_wait_seconds_total",
                                       "Time spent waiting for a batch.")),
      snapshots_(metrics.AddCounter("troupe_learner_snapshots_total", "Snapshots published.")),
      checkpoints_(metrics.AddCounter("troupe_learner_checkpoints_total", "Checkpoints written.")),
      steps_too_old_(metrics.AddCounter("troupe_learner_steps_too_old_total",
                                        "Steps left out because their policy was too old.")),
      replica_missed_(metrics.AddCounter(
          "troupe_learner_replica_rows_missed_total",
          "Rows that shards gave up before the learner's replica had them, at most.")),
      env_steps_(metrics.AddGauge("troupe_learner_env_steps",
                                  "Environment steps in the shards, as the learner knows.")),
      policy_version_(metrics.AddGauge("troupe_learner_policy_version",
                                       "Counter of the newest published policy version.")),
      published_time_(metrics.AddGauge("troupe_learner_snapshot_timestamp_seconds",
                                       "When the newest snapshot was published.")),
      checkpoint_time_(metrics.AddGauge("troupe_learner_checkpoint_timestamp_seconds",
                                        "When the newest checkpoint was written.")),
      replica_rows_(metrics.AddGauge("troupe_learner_replica_rows",
                                     "Rows in the learner's replica of the table.")),
      replica_behind_(metrics.AddGauge("troupe_learner_replica_rows_behind",
                                       "Rows that shards store and the replica has not got.")),
      update_seconds_(metrics.AddHistogram("troupe_learner_update_duration_seconds",
                                           "Time of one gradient step.", DurationBounds())) {
  for (const auto& [name, help] : kStatistics) {
    statistics_[name] = &metrics.AddGauge(absl::StrCat("troupe_learner_", name), help);
    statistics_[name]->Set(std::nan(""));  // for good, where the algorithm has none such
  }
}

void ProgressLog::CountUpdates(int64_t updates, double seconds) {
  if (updates == 0) return;
  updates_.Increment(static_cast<double>(updates));
  update_seconds_.Observe(seconds / static_cast<double>(updates));
}

void ProgressLog::NoteReplica(uint64_t rows, uint64_t behind, uint64_t missed) {
  replica_rows_.Set(static_cast<double>(rows));
  replica_behind_.Set(static_cast<double>(behind));
  replica_missed_.Increment(static_cast<double>(missed));
}

void ProgressLog::CountPublished(uint64_t version) {
  snapshots_.Increment();
  policy_version_.Set(static_cast<double>(PolicyVersion::Unpack(version).counter));
  published_time_.Set(UnixTime());
}

void ProgressLog::CountCheckpoint() {
  checkpoints_.Increment();
  checkpoint_time_.Set(UnixTime());
}

absl::Status ProgressLog::Write(const Progress& progress) {
  env_steps_.Set(static_cast<double>(progress.env_steps));
  for (const auto& [name, value] : progress.statistics) {
    const auto gauge = statistics_.find(name);
    if (gauge != statistics_.end()) gauge->second->Set(value);
  }
  spdlog::info("{} updates, {} env steps, {:.1f} updates/s, waited {:.1f} s; {}", progress.updates,
               progress.env_steps, progress.updates_per_second, progress.wait_seconds,
               absl::StrJoin(progress.statistics, " ", [](std::string* out, const auto& entry) {
                 absl::StrAppendFormat(out, "%s %.4g", entry.first, entry.second);
               }));
  absl::Status status = WriteLine(progress);
  if (status.ok()) status = WriteEvents(progress);
  return status;
}

absl::Status ProgressLog::WriteLine(const Progress& progress) {
  nlohmann::ordered_json line = {{"unix_time", UnixTime()},
                                 {"env_steps", progress.env_steps},
                                 {"updates", progress.updates},
                                 {"policy_version", progress.policy_version}};
  for (const auto& [name, value] : progress.statistics) line[name] = value;
  line["updates_per_second"] = progress.updates_per_second;
  line["wait_seconds"] = progress.wait_seconds;
  if (progress.done) line["done"] = true;
  return AppendJsonLine(path_, line);
}

absl::Status ProgressLog::WriteEvents(const Progress& progress) {
  absl::Status status;
  for (const auto& [name, value] : progress.statistics) {
    status.Update(events_->WriteScalar(absl::StrCat("learner/", name), progress.env_steps, value));
  }
  status.Update(events_->WriteScalar("learner/updates", progress.env_steps,
                                     static_cast<double>(progress.updates)));
  status.Update(events_->WriteScalar("learner/updates_per_second", progress.env_steps,
                                     progress.updates_per_second));
  status.Update(events_->Flush());
  return status;
}

}  // namespace troupe
