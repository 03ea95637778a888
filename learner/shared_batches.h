#ifndef TROUPE_LEARNER_SHARED_BATCHES_H_
#define TROUPE_LEARNER_SHARED_BATCHES_H_

#include <cstdint>
#include <memory>

#include "learner/batch_source.h"
#include "learner/rank_group.h"

namespace troupe {

// Batches of an on-policy algorithm for several ranks: rank 0 gathers one for all of them, and each
// gets its share.  Were each to draw its own, one would take what the other waits for, and the
// actors make no more of it until all have learned.
//
// Not thread-safe; every rank calls Next() at the same time.
class SharedBatches final : public BatchSource {
 public:
  struct Options {
    int64_t batch_windows = 1;  // of each rank
    int64_t window_length = 2;  // rows
    int64_t stride_bytes = 0;
  };

  // `all`, of rank 0, gives batches of ranks.size() * batch_windows; the others need none.
  // `ranks` outlives this.
  SharedBatches(std::unique_ptr<BatchSource> all, RankGroup& ranks, const Options& options);

  // Errors are RankGroup's, too.
  absl::StatusOr<WindowBatch> Next(const PolicyVersion& version, absl::Time deadline) override;
  int64_t steps_too_old() const override { return all_ == nullptr ? 0 : all_->steps_too_old(); }

 private:
  const std::unique_ptr<BatchSource> all_;
  RankGroup& ranks_;
  const int64_t share_bytes_;
  const std::shared_ptr<BatchPool> pool_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_SHARED_BATCHES_H_
