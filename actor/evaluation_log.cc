#include "actor/evaluation_log.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/json_lines.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

double MeanLength(const EpisodeResults& results) {
  return Mean(std::vector<double>(results.lengths.begin(), results.lengths.end()));
}

}  // namespace

EvaluationLog::EvaluationLog(std::string path, std::unique_ptr<EventWriter> events,
                             Metrics& metrics)
    : path_(std::move(path)),
      events_(std::move(events)),
      return_mean_(
          metrics.AddGauge("troupe_evaluator_return_mean", "Mean return of the last evaluation.")),
      return_std_(metrics.AddGauge("troupe_evaluator_return_std",
                                   "Standard deviation of the returns of the last evaluation.")),
      length_mean_(metrics.AddGauge("troupe_evaluator_episode_length_steps",
                                    "Mean length of the episodes of the last evaluation.")),
      env_steps_(metrics.AddGauge("troupe_evaluator_env_steps",
                                  "Environment steps of the run behind the evaluated policy.")),
      evaluations_(
          metrics.AddCounter("troupe_evaluator_evaluations_total", "Evaluations finished.")) {
  for (prometheus::Gauge* gauge : {&return_mean_, &return_std_, &length_mean_, &env_steps_}) {
    gauge->Set(std::nan(""));  // until there is one
  }
}

absl::StatusOr<std::unique_ptr<EvaluationLog>> EvaluationLog::Create(const std::string& directory,
                                                                     Metrics& metrics) {
  auto events = EventWriter::Create(absl::StrCat(directory, "/tensorboard"));
  if (!events.ok()) return events.status();
  metrics.AddDisk(directory);
  return std::unique_ptr<EvaluationLog>(new EvaluationLog(
      absl::StrCat(directory, "/evaluations.jsonl"), *std::move(events), metrics));
}

absl::Status EvaluationLog::Write(const PolicyMetadata& policy, const EpisodeResults& results) {
  const double mean = Mean(results.returns);
  const double std = StandardDeviation(results.returns);
  return_mean_.Set(mean);
  return_std_.Set(std);
  length_mean_.Set(MeanLength(results));
  env_steps_.Set(static_cast<double>(policy.env_steps));
  evaluations_.Increment();
  const nlohmann::ordered_json line = {
      {"env_steps", policy.env_steps},
      {"updates", policy.updates},
      {"policy_version", policy.version},
      {"return_mean", mean},
      {"return_std", std},
      {"episodes", results.returns.size()},
      {"length_mean", MeanLength(results)},
      {"unix_time", absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())}};
  if (absl::Status status = AppendJsonLine(path_, line); !status.ok()) return status;
  for (const auto& [tag, value] : {std::pair<const char*, double>{"evaluation/return_mean", mean},
                                   {"evaluation/return_std", std},
                                   {"evaluation/length_mean", MeanLength(results)}}) {
    absl::Status status = events_->WriteScalar(tag, policy.env_steps, value);
    if (!status.ok()) return status;
  }
  return events_->Flush();
}

}  // namespace troupe
