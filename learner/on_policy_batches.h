#ifndef TROUPE_LEARNER_ON_POLICY_BATCHES_H_
#define TROUPE_LEARNER_ON_POLICY_BATCHES_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "learner/batch_source.h"

namespace troupe {

// Batches of windows that are drawn one by one, in the order in which the shards completed them,
// and whose rows are all recent enough.  With max_policy_lag = 0 every row of a batch was drawn
// with the learner's newest policy.
//
// Where every actor makes one unroll and waits for the next policy, a batch that lacks windows
// would never be full once a writer has died, or with fewer environments than windows: when no rows
// come for a while, the others are asked for more.  Not thread-safe.
class OnPolicyBatches final : public BatchSource {
 public:
  struct Options {
    int64_t batch_windows = 1;
    int64_t window_length = 2;  // rows
    int64_t lead_rows = 0;      // its first ones, which nobody learns from: of any age
    int64_t stride_bytes = 0;
    int64_t max_policy_lag = 0;  // versions
    // Without rows for so long, a batch stalls.  Above twice the replay client's request_timeout,
    // for so old its counts may be.
    absl::Duration stall = absl::Milliseconds(500);
  };

  // `replay` draws one window at a time, and outlives this.
  OnPolicyBatches(ReplayClient& replay, const Options& options);

  absl::StatusOr<WindowBatch> Next(const PolicyVersion& version, absl::Time deadline) override;
  int64_t steps_too_old() const override { return steps_too_old_; }
  // How often no rows came for a while.
  int64_t stalls() const { return stalls_; }

 private:
  // The next window, or DEADLINE_EXCEEDED; meanwhile asks for more unrolls if no rows come.
  absl::StatusOr<WindowBatch> NextWindow(const PolicyVersion& version, absl::Time deadline);
  void NoteStall(const PolicyVersion& version);
  // Steps of `window` if one of them is too old, else 0.
  int64_t StepsIfTooOld(const WindowBatch& window, const PolicyVersion& version) const;

  ReplayClient& replay_;
  const Options options_;
  const std::shared_ptr<BatchPool> pool_;
  std::optional<WindowBatch> gathered_;  // the batch in the making
  int64_t num_gathered_ = 0;             // windows of it
  uint64_t gathered_for_ = 0;            // version that the learner had
  int64_t steps_too_old_ = 0;
  int64_t stalls_ = 0;
  // Rows are flowing: environment steps when they were last seen to grow, and when.
  uint64_t flowing_steps_ = 0;
  absl::Time flowing_since_ = absl::InfinitePast();
  // Windows that came, when a batch stalled, from environments that each made one; 0: not known, or
  // enough for a batch.
  int64_t round_windows_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_ON_POLICY_BATCHES_H_
