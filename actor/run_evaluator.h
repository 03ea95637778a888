#ifndef TROUPE_ACTOR_RUN_EVALUATOR_H_
#define TROUPE_ACTOR_RUN_EVALUATOR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/metrics.h"
#include "common/program.h"
#include "common/snapshot_client.h"
#include "proto/config.pb.h"

namespace troupe {

struct EvaluatorOptions {
  proto::Environment environment;
  std::string asset_dir;
  proto::Evaluator evaluator;
  uint64_t seed = 1;
  std::string output_dir = ".";  // for evaluations.jsonl and TensorBoard files
  SnapshotClientOptions snapshots;
};

// Evaluates the newest policy whenever the run has come `interval_env_steps` further, and the last
// one, until `stop`.
absl::Status RunEvaluator(const EvaluatorOptions& options, StopToken& stop, Metrics& metrics);

}  // namespace troupe

#endif  // TROUPE_ACTOR_RUN_EVALUATOR_H_
