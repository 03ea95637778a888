#ifndef TROUPE_REPLAY_SERVER_TABLE_H_
#define TROUPE_REPLAY_SERVER_TABLE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/layout.h"
#include "common/rate_limit.h"
#include "proto/replay.pb.h"
#include "replay_server/disk_sync.h"
#include "replay_server/followers.h"
#include "replay_server/row_log.h"
#include "replay_server/row_run.h"
#include "replay_server/sample_batch.h"
#include "replay_server/scheduler.h"
#include "replay_server/selectable_windows.h"
#include "replay_server/table_options.h"
#include "replay_server/waiting_calls.h"

namespace troupe {

// A row log, a window rule, a selector and a rate limiter.
//
// Thread-safe; nothing waits in here but for the mutex, which is never held while windows are
// copied out.  Not made until the first actor brings the layout: the row log.
class Table final {
 public:
  // Recovers the row log if there is one.  FAILED_PRECONDITION: it was made with another capacity.
  static absl::StatusOr<std::unique_ptr<Table>> Make(const TableOptions& options,
                                                     Scheduler* scheduler);

  const TableOptions& options() const { return options_; }
  // The run whose rows are in the log; empty before there is a log.
  std::string run() const ABSL_LOCKS_EXCLUDED(mu_);

  // Makes the log for this layout, or checks that it is the log's.
  absl::Status Open(const std::string& run, const Layout& layout) ABSL_LOCKS_EXCLUDED(mu_);
  // FAILED_PRECONDITION: this layout could not be opened.  OK before there is a log.
  absl::Status CheckLayout(const Layout& layout) const ABSL_LOCKS_EXCLUDED(mu_);

  std::vector<proto::StreamAck> Held(absl::Span<const uint64_t> streams) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // Stores what is new of all runs, or nothing of any: INVALID_ARGUMENT, or FAILED_PRECONDITION
  // for a gap, or where a table that never evicts is full.  RESOURCE_EXHAUSTED: the file system has
  // no space for compressed rows; those before are stored.  Returns what is held of each stream
  // named.  REQUIRES: Open() was OK.
  absl::StatusOr<std::vector<proto::StreamAck>> Append(absl::Span<const RowRunView> runs,
                                                       uint64_t newest_version, bool preload)
      ABSL_LOCKS_EXCLUDED(mu_);

  // What has to sync before anything that Held() or Append() returned is acked; null: nothing.
  DiskSync* disk_sync() const { return disk_sync_.get(); }

  // Unless the writer may write, it was told to wait.
  Admission AdmitWriterOrWait(const WaiterPtr& writer) ABSL_LOCKS_EXCLUDED(mu_);
  // True: `batch` is filled; false: `sampler` was told to wait.
  bool SampleOrWait(const SampleQuery& query, const WaiterPtr& sampler, SampleBatch* batch)
      ABSL_LOCKS_EXCLUDED(mu_);
  // INVALID_ARGUMENT: a priority that is none, or not one for each id; then nothing is changed.
  absl::StatusOr<PriorityOutcome> UpdatePriorities(const proto::PriorityUpdates& updates)
      ABSL_LOCKS_EXCLUDED(mu_);
  // From now on `follower` is the table's, until StopFollowing().  FAILED_PRECONDITION: its
  // position is none of this table.
  absl::Status StartFollowing(const FollowerPtr& follower) ABSL_LOCKS_EXCLUDED(mu_);
  // True: `batch` holds the next rows; false: there are none, and `waiter` was told to wait.
  bool FollowOrWait(const FollowerPtr& follower, const WaiterPtr& waiter, FollowBatch* batch)
      ABSL_LOCKS_EXCLUDED(mu_);
  void StopFollowing(const FollowerPtr& follower, const WaiterPtr& waiter) ABSL_LOCKS_EXCLUDED(mu_);
  // What the log is; nothing before there is one.
  std::optional<LogMetadata> log_metadata() const ABSL_LOCKS_EXCLUDED(mu_);
  // As RowLog says.  REQUIRES: there is a log.
  void CopyAllButRows(absl::Span<uint8_t> to) const ABSL_LOCKS_EXCLUDED(mu_);
  // Adds `count` rows of a block to `rows`, pinned; false: the block is evicted.  REQUIRES: they
  // are committed, and there is a log.
  bool PinRows(uint64_t block_generation, uint32_t first_slot, uint32_t count, PinnedRows* rows)
      ABSL_LOCKS_EXCLUDED(mu_);
  // A waiter that is given up.
  void Forget(const WaiterPtr& waiter) ABSL_LOCKS_EXCLUDED(mu_);
  // An answer without windows.
  void FillCounts(SampleBatch* batch) const ABSL_LOCKS_EXCLUDED(mu_);
  // What a learner knows of the other shards; its newest word counts.  `num_shards` with this one;
  // 0: it does not say.
  void NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled, uint32_t num_shards = 0)
      ABSL_LOCKS_EXCLUDED(mu_);
  // A learner has drawn windows from its own replica: so many count as sampled here, at least.
  void NoteSampled(uint64_t sampled) ABSL_LOCKS_EXCLUDED(mu_);
  // Size of one window; 0 before there is a log. Unit: bytes.
  uint64_t window_bytes() const ABSL_LOCKS_EXCLUDED(mu_);

  // Calls that begin (1) and end (-1), for descriptions.
  void CountAppendCall(int change) { append_calls_ += change; }
  void CountSampleCall(int change) { sample_calls_ += change; }
  void CountFollowCall(int change) { follow_calls_ += change; }
  proto::TableDescription Describe() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Table(const TableOptions& options, Scheduler* scheduler);
  absl::Status SyncRecovered(RowLog* log) const;
  void StartDiskSync();
  void Redirty(RowLog* log) ABSL_LOCKS_EXCLUDED(mu_);
  void Adopt(std::unique_ptr<RowLog> log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Store(RowRunView run, uint64_t newest_version, bool preload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteVersions(const StagedRows& staged, uint64_t newest_version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EvictBlock(uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Adds the windows in completed_.
  void AddCompleted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Draw(uint64_t n, SampleBatch* batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddRows(const Selection& selection, PinnedRows* rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillCountsLocked(SampleBatch* batch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes this shard's part of what the union may still insert.
  void TakeShare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  LimiterCounts CountsOfAll() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string WhyWaits(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  proto::WaitReason ReasonToWait(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DescribeWaits(proto::TableDescription* description) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Admits(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeAdmitted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DescribeLog(proto::TableDescription* description) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const TableOptions options_;
  const WindowCutter cutter_;
  const RateLimiter limiter_;
  Scheduler* const scheduler_;
  std::atomic<int> append_calls_{0};  // atomic: counted by calls on any thread
  std::atomic<int> sample_calls_{0};  // likewise
  std::atomic<int> follow_calls_{0};  // likewise

  mutable absl::Mutex mu_;
  // All four are there, or none.
  std::unique_ptr<RowLog> log_ ABSL_GUARDED_BY(mu_);
  std::optional<Layout> layout_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<SelectableWindows> windows_ ABSL_GUARDED_BY(mu_);
  // Windows being copied out, by the block they start in: it is not evicted meanwhile.  Atomic,
  // so that the copier need not take the mutex, which the evicter holds while it waits.
  std::unique_ptr<std::atomic<uint32_t>[]> pins_ ABSL_GUARDED_BY(mu_);
  LimiterCounts others_ ABSL_GUARDED_BY(mu_);  // of the other shards, and share_here
  int64_t num_shards_ ABSL_GUARDED_BY(mu_);    // that share what may be inserted
  uint64_t version_lag_sum_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t version_lag_rows_ ABSL_GUARDED_BY(mu_) = 0;
  PriorityOutcome priorities_ ABSL_GUARDED_BY(mu_);
  std::vector<BlockMask> completed_ ABSL_GUARDED_BY(mu_);  // scratch
  WaitingCalls waiting_ ABSL_GUARDED_BY(mu_);
  Followers followers_ ABSL_GUARDED_BY(mu_);
  // Constant once made.  Last: its thread uses all above.
  std::unique_ptr<DiskSync> disk_sync_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_TABLE_H_
