#ifndef TROUPE_REPLAY_SERVER_SHARD_H_
#define TROUPE_REPLAY_SERVER_SHARD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/replay.pb.h"
#include "replay_server/calls.h"
#include "replay_server/mapped_file.h"
#include "replay_server/message_budget.h"
#include "replay_server/scheduler.h"
#include "replay_server/snapshot_store.h"
#include "replay_server/table.h"

namespace troupe {

struct ShardOptions {
  std::string data_dir;
  std::string backup_dir = {};       // empty: backups are refused
  std::vector<TableOptions> tables;  // `path` is filled in by the shard
  int64_t max_message_bytes = int64_t{4} << 20;
  int64_t max_snapshot_bytes = int64_t{1} << 30;
  int32_t max_streams = 4096;
  int64_t max_connections = 0;  // 0: as many as the limit of open files allows, at most 8192
  int64_t append_window_bytes = int64_t{4} << 20;
  int64_t message_budget_bytes = int64_t{256} << 20;
  bool ack_disk = false;  // rows are acked once they are on the disk, not in the page cache
  DiskSyncOptions disk_sync = {};
  // Told how long each message of rows took to store; thread-safe; may be empty.
  std::function<void(absl::Duration)> observe_append = {};
  // Told how long each batch of windows took to draw and copy; likewise.
  std::function<void(absl::Duration)> observe_sample = {};
  // Told why each call was refused or broken off by the shard; likewise.
  std::function<void(absl::StatusCode)> observe_refusal = {};
};

// What the services of one shard share: its tables, its snapshot, the run they belong to.
//
// Thread-safe.  Owned by the server; outlives every call.
class Shard final {
 public:
  explicit Shard(const ShardOptions& options);
  ~Shard();

  // Locks the data directory and reads all that is in it; then the shard serves.
  // FAILED_PRECONDITION: in use by another server, or rows of two runs, or another capacity.
  absl::Status Recover() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends every call; no new one is taken.
  void Drain();

  const ShardOptions& options() const { return options_; }
  CallRegistry& calls() { return calls_; }
  const CallRegistry& calls() const { return calls_; }
  Scheduler& scheduler() { return scheduler_; }
  // Where snapshots are written, so that samplers do not wait for a disk.
  Scheduler& snapshot_writer() { return snapshot_writer_; }
  // Where backups are made, which take long.
  Scheduler& backup_writer() { return backup_writer_; }
  SnapshotStore& snapshots() { return snapshots_; }
  MessageBudget& budget() { return budget_; }
  const MessageBudget& budget() const { return budget_; }

  // UNAVAILABLE: recovering or draining.
  absl::Status CheckServing() const;
  // Clients know the shard again by it, wherever it runs.  0: recovering.
  uint64_t id() const { return id_; }
  // The shard belongs to the first run that a call names.  FAILED_PRECONDITION: to another one.
  absl::Status ClaimRun(const std::string& run) ABSL_LOCKS_EXCLUDED(mu_);
  // FAILED_PRECONDITION as above, but claims nothing; an empty run is any.
  absl::Status CheckRun(const std::string& run) const ABSL_LOCKS_EXCLUDED(mu_);
  // NOT_FOUND lists the tables there are.  REQUIRES: CheckServing().
  absl::StatusOr<Table*> FindTable(const std::string& name) const;
  uint64_t newest_version() const { return snapshots_.newest_version(); }
  uint64_t snapshot_write_failures() const { return snapshots_.write_failures(); }
  // REQUIRES: CheckServing() was OK once.
  absl::Span<const std::unique_ptr<Table>> tables() const { return tables_; }

  // How a call ended, for whoever counts refusals.
  void NoteEnd(const absl::Status& status) const;

  // Turns writers away, or takes them again.  Returns how many may still send rows.
  uint32_t SetDraining(bool draining);
  bool draining() const { return draining_; }

  // `with_calls`: every call that is open, too.
  proto::DescribeReply Describe(bool with_calls = false) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::vector<proto::CallDescription> DescribeCalls() const;

  enum class State { kRecovering, kServing, kDraining };

  const ShardOptions options_;
  std::atomic<State> state_{State::kRecovering};  // atomic: read by every call
  std::atomic<bool> draining_{false};             // of its writers; atomic: likewise
  std::atomic<uint64_t> id_{0};                   // the same
  CallRegistry calls_;
  SnapshotStore snapshots_;
  std::vector<std::unique_ptr<Table>> tables_;  // constant once serving
  std::optional<DirectoryLock> directory_lock_;
  mutable absl::Mutex mu_;
  std::string run_ ABSL_GUARDED_BY(mu_);
  // Last, so that no task runs when the rest is destroyed.
  Scheduler scheduler_;
  MessageBudget budget_;
  Scheduler snapshot_writer_;
  Scheduler backup_writer_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SHARD_H_
