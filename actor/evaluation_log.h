#ifndef TROUPE_ACTOR_EVALUATION_LOG_H_
#define TROUPE_ACTOR_EVALUATION_LOG_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "actor/evaluator.h"
#include "common/event_writer.h"
#include "common/metrics.h"
#include "common/policy.h"

namespace troupe {

// Where results of evaluations go: a line of `evaluations.jsonl`, TensorBoard and Prometheus.
// Not thread-safe.
class EvaluationLog final {
 public:
  // Makes `directory` if need be.  Errors name the path.
  static absl::StatusOr<std::unique_ptr<EvaluationLog>> Create(const std::string& directory,
                                                               Metrics& metrics);

  absl::Status Write(const PolicyMetadata& policy, const EpisodeResults& results);

 private:
  EvaluationLog(std::string path, std::unique_ptr<EventWriter> events, Metrics& metrics);

  const std::string path_;
  const std::unique_ptr<EventWriter> events_;
  prometheus::Gauge& return_mean_;
  prometheus::Gauge& return_std_;
  prometheus::Gauge& length_mean_;
  prometheus::Gauge& env_steps_;
  prometheus::Counter& evaluations_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_EVALUATION_LOG_H_
