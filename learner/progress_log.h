#ifndef TROUPE_LEARNER_PROGRESS_LOG_H_
#define TROUPE_LEARNER_PROGRESS_LOG_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/event_writer.h"
#include "common/metrics.h"

namespace troupe {

// Where the learner stands.
struct Progress {
  int64_t env_steps = 0;
  int64_t updates = 0;
  uint64_t policy_version = 0;
  std::map<std::string, double> statistics;  // of the algorithm
  double updates_per_second = 0;             // since the line before
  double wait_seconds = 0;                   // spent without a batch since the line before
  bool done = false;                         // the run is complete
};

// Shows progress in learner.jsonl, in TensorBoard files, in the log and as metrics.
//
// Not thread-safe, but for the metrics.
class ProgressLog final {
 public:
  // Makes `run_dir` if need be; continues files that are there.  Errors name the path.
  static absl::StatusOr<std::unique_ptr<ProgressLog>> Create(const std::string& run_dir,
                                                             Metrics& metrics);

  absl::Status Write(const Progress& progress);

  // Between two lines: metrics only.
  // Gradient steps and what they took together.
  void CountUpdates(int64_t updates, double seconds);
  void CountTooOld(int64_t steps) { steps_too_old_.Increment(static_cast<double>(steps)); }
  // Rows in the replica, rows that shards store and it has not got, and rows newly missed for good.
  void NoteReplica(uint64_t rows, uint64_t behind, uint64_t missed);
  void CountWait(double seconds) { wait_seconds_.Increment(seconds); }
  void CountPublished(uint64_t version);
  void CountCheckpoint();

 private:
  ProgressLog(std::string path, std::unique_ptr<EventWriter> events, Metrics& metrics);

  absl::Status WriteLine(const Progress& progress);
  absl::Status WriteEvents(const Progress& progress);

  const std::string path_;
  const std::unique_ptr<EventWriter> events_;
  prometheus::Counter &updates_, &wait_seconds_, &snapshots_, &checkpoints_, &steps_too_old_,
      &replica_missed_;
  prometheus::Gauge &env_steps_, &policy_version_, &published_time_, &checkpoint_time_,
      &replica_rows_, &replica_behind_;
  prometheus::Histogram& update_seconds_;
  std::map<std::string, prometheus::Gauge*> statistics_;  // owned by the metrics
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PROGRESS_LOG_H_
