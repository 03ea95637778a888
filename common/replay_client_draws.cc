#include <algorithm>

#include "common/replay_client_impl.h"

namespace troupe {

// Before every shard was tried, the counts are those of the first to answer alone.
int64_t ReplayClient::Impl::BatchesThatFit(int64_t most) const {
  if (!AllTried()) return 0;
  const LimiterCounts counts = CountsWithAsked();
  int64_t batches = 0;
  while (batches < most && limiter_.SampleFits((batches + 1) * options_.batch_size, counts)) {
    ++batches;
  }
  return batches;
}

absl::StatusOr<int64_t> ReplayClient::Impl::AdmitDraws(int64_t most, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  if (pool_ == nullptr) {
    return absl::FailedPreconditionError("AdmitDraws before WaitForTable returned OK");
  }
  awaits_draws_ = true;
  Advance();
  const auto ready = [this] {
    mu_.AssertReaderHeld();
    return BatchesThatFit(1) > 0 || stopped_ || !permanent_.ok();
  };
  mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  awaits_draws_ = false;
  const int64_t batches = BatchesThatFit(most);
  if (!permanent_.ok()) return permanent_;
  if (stopped_) return absl::CancelledError("replay client is stopped");
  if (batches == 0) return absl::DeadlineExceededError(WaitsFor());
  NoteStarvation(false);
  NoteDraws(batches * options_.batch_size);
  stats_.batches += batches;
  return batches;
}

// They count as sampled from the shard that has the least so far, if there is one that can be told.
void ReplayClient::Impl::NoteDraws(int64_t windows) {
  Lane& least = *std::min_element(lanes_.begin(), lanes_.end(), [](const Lane& a, const Lane& b) {
    return std::make_pair(!a.up, Sampled(a)) < std::make_pair(!b.up, Sampled(b));
  });
  least.drawn = Sampled(least) + windows;
  for (size_t shard = 0; shard < lanes_.size(); ++shard) {
    lanes_[shard].draws_due = true;
    SendNext(shard);
  }
}

// A new session begins with a shard, whose counts were `before`.  One that lost its inserts lost
// the samples that they paid for, too.
void ReplayClient::Impl::KeepDraws(Lane& lane, const proto::TableCounts& before,
                                   const proto::TableCounts& now) {
  if (lane.drawn == 0) return;
  const bool is_another = now.inserted() < before.inserted();
  lane.drawn = is_another ? now.sampled() : std::max<uint64_t>(lane.drawn, now.sampled());
  lane.draws_due = true;
}

}  // namespace troupe
