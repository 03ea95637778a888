#ifndef TROUPE_LEARNER_BATCH_SOURCE_H_
#define TROUPE_LEARNER_BATCH_SOURCE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/replay_client.h"
#include "common/version.h"
#include "common/window_batch.h"

namespace troupe {

// Where an algorithm's batches come from.  Not thread-safe.
class BatchSource {
 public:
  virtual ~BatchSource() = default;

  // The next batch for a learner whose newest published policy is `version`.  Errors are
  // ReplayClient::NextBatch's; after DEADLINE_EXCEEDED the next call goes on where this one was.
  virtual absl::StatusOr<WindowBatch> Next(const PolicyVersion& version, absl::Time deadline) = 0;

  // Steps that were left out because the policy that drew them was too old.
  virtual int64_t steps_too_old() const { return 0; }
};

// Batches as the replay client draws them, for off-policy algorithms.
class SampledBatches final : public BatchSource {
 public:
  explicit SampledBatches(ReplayClient& replay) : replay_(replay) {}

  absl::StatusOr<WindowBatch> Next(const PolicyVersion& version, absl::Time deadline) override {
    return replay_.NextBatch(deadline);
  }

 private:
  ReplayClient& replay_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_BATCH_SOURCE_H_
