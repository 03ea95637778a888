#ifndef TROUPE_REPLAY_SERVER_TABLE_H_
#define TROUPE_REPLAY_SERVER_TABLE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/layout.h"
#include "common/rate_limit.h"
#include "proto/config.pb.h"
#include "proto/replay.pb.h"
#include "replay_server/disk_sync.h"
#include "replay_server/follower.h"
#include "replay_server/row_log.h"
#include "replay_server/sample_batch.h"
#include "replay_server/scheduler.h"
#include "replay_server/selectors/interface.h"
#include "replay_server/turns.h"
#include "replay_server/window_cutter.h"

namespace troupe {

struct TableOptions {
  std::string name;
  std::string path;  // of the row log
  uint64_t capacity_rows = 0;
  WindowRule window;
  proto::SelectorKind selector = proto::UNIFORM;
  double priority_exponent = 0.6;
  bool never_evict = false;
  uint8_t max_times_sampled = 0;  // 0: no limit
  RateLimit rate_limit;
  int num_shards = 1;     // that share the rate limiter's band
  bool ack_disk = false;  // rows are acked once they are on the disk
  DiskSyncOptions disk_sync = {};
};

// Consecutive packed rows of one stream, as they came.
struct RowRunView {
  uint64_t stream = 0;
  uint64_t first_row = 0;
  absl::string_view rows;
};

struct SampleQuery {
  uint64_t num_windows = 0;     // 0: only the counts ...
  uint64_t inserted_above = 0;  // ... once more windows than this were inserted here
};

// What became of new priorities.
struct PriorityOutcome {
  uint64_t updated = 0;
  uint64_t unknown = 0;  // ids that named no window
};

// A call that may have to wait.  `wake` is posted to the scheduler once for each time the call was
// told to wait, and must not keep the call alive.
struct Waiter {
  std::function<void()> wake;
  // The table's, under its mutex.
  SampleQuery query = {};
  std::optional<std::chrono::steady_clock::time_point> since = {};
};
using WaiterPtr = std::shared_ptr<Waiter>;
using FollowerPtr = std::shared_ptr<Follower>;

// May a writer write now?
enum class Admission {
  kAdmitted,
  kHeldBack,    // by the rate limiter, for as long as it takes
  kNotItsTurn,  // woken by the next batches; if none come, it asks again after Turns::kQuiet
};

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
  // for a gap, or where a table that never evicts is full.  Returns what is held of each stream
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
  // What a learner knows of the other shards; its newest word counts.
  void NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled) ABSL_LOCKS_EXCLUDED(mu_);
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
  void Adopt(std::unique_ptr<RowLog> log) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRuns(absl::Span<const RowRunView> runs) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRoom(const absl::flat_hash_map<uint64_t, uint64_t>& wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Store(RowRunView run, uint64_t newest_version, bool preload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteVersions(const StagedRows& staged, uint64_t newest_version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EvictBlock(uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddWindows(uint32_t block, uint64_t mask) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Span<const float> FirstPriorities(uint32_t block, uint64_t mask)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteStoredPriorities(absl::Span<const uint32_t> blocks) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountLostCounts() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // How often windows of one block may still be drawn; 0 without max_times_sampled.
  uint64_t DrawsLeft(uint32_t block, uint64_t mask) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveWindows(uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CountSampled(const Selection& selection) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Fills selections_.
  void Select(uint64_t n) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddRows(const Selection& selection, PinnedRows* rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillCountsLocked(SampleBatch* batch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes this shard's part of what the union may still insert.
  void TakeShare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  LimiterCounts CountsOfAll() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The most windows that can be drawn now.
  int64_t Available() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string WhyWaits(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Admits(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeAdmitted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeWhoseTurnItIs(std::chrono::steady_clock::time_point now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteCommit(uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteEviction(uint32_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WakeFollowers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string DescribeWaiters(const std::list<WaiterPtr>& waiters, absl::string_view who,
                              const std::string& why) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const TableOptions options_;
  const WindowCutter cutter_;
  const RateLimiter limiter_;
  const bool tracks_times_;  // are windows counted by how often they were sampled?
  Scheduler* const scheduler_;
  std::atomic<int> append_calls_{0};  // atomic: counted by calls on any thread
  std::atomic<int> sample_calls_{0};  // likewise
  std::atomic<int> follow_calls_{0};  // likewise

  mutable absl::Mutex mu_;
  std::unique_ptr<RowLog> log_ ABSL_GUARDED_BY(mu_);
  std::optional<Layout> layout_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Selector> selector_ ABSL_GUARDED_BY(mu_);
  absl::BitGen random_ ABSL_GUARDED_BY(mu_);
  // Windows being copied out, by the block they start in: it is not evicted meanwhile.  Atomic,
  // so that the copier need not take the mutex, which the evicter holds while it waits.
  std::unique_ptr<std::atomic<uint32_t>[]> pins_ ABSL_GUARDED_BY(mu_);
  uint64_t selectable_ ABSL_GUARDED_BY(mu_) = 0;  // windows in the selector
  uint64_t unsampled_ ABSL_GUARDED_BY(mu_) = 0;   // of them, never sampled
  uint64_t draws_left_ ABSL_GUARDED_BY(mu_) = 0;  // until all windows reach max_times_sampled
  uint64_t others_inserted_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t others_sampled_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t others_preloaded_ ABSL_GUARDED_BY(mu_) = 0;
  double insert_until_ ABSL_GUARDED_BY(mu_) = std::numeric_limits<double>::infinity();
  uint64_t version_lag_sum_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t version_lag_rows_ ABSL_GUARDED_BY(mu_) = 0;
  float max_priority_ ABSL_GUARDED_BY(mu_) = 1;  // of any window ever: new ones begin at it
  PriorityOutcome priorities_ ABSL_GUARDED_BY(mu_);
  // Scratch.
  std::vector<BlockMask> completed_ ABSL_GUARDED_BY(mu_);
  std::vector<Selection> selections_ ABSL_GUARDED_BY(mu_);
  std::vector<Selection> drawn_ ABSL_GUARDED_BY(mu_);
  std::vector<PriorityChange> changes_ ABSL_GUARDED_BY(mu_);
  std::array<float, kRowsPerBlock> first_priorities_ ABSL_GUARDED_BY(mu_);
  std::list<WaiterPtr> writers_ ABSL_GUARDED_BY(mu_);
  std::list<WaiterPtr> samplers_ ABSL_GUARDED_BY(mu_);
  Turns turns_ ABSL_GUARDED_BY(mu_);
  std::list<WaiterPtr> awaiting_turn_ ABSL_GUARDED_BY(mu_);  // writers
  std::list<FollowerPtr> followers_ ABSL_GUARDED_BY(mu_);
  std::list<WaiterPtr> waiting_followers_ ABSL_GUARDED_BY(mu_);  // of those, that have everything
  // Constant once made.  Last: its thread uses all above.
  std::unique_ptr<DiskSync> disk_sync_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_TABLE_H_
