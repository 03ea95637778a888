#ifndef TROUPE_REPLAY_SERVER_SNAPSHOT_STORE_H_
#define TROUPE_REPLAY_SERVER_SNAPSHOT_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/snapshot.h"

namespace troupe {

// The newest snapshot of a shard, in memory and in a file that outlives `kill -9`.  A file that
// cannot be written, as on a full disk, is a loud warning: the relay goes on from memory, and the
// next snapshot is written again.
//
// Thread-safe; nothing is called back under its locks.
class SnapshotStore final {
 public:
  // `synced`: the file outlives the loss of power, too.
  explicit SnapshotStore(std::string path, bool synced = false)
      : path_(std::move(path)), synced_(synced) {}

  // Reads the file.  OK if there is none; DATA_LOSS if it cannot be used: then there is none.
  absl::Status Recover() ABSL_LOCKS_EXCLUDED(publish_mu_, mu_);

  // Null: none yet.
  SnapshotPtr newest() const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t newest_version() const ABSL_LOCKS_EXCLUDED(mu_);
  // Snapshots that could not be written since the process began.
  uint64_t write_failures() const { return write_failures_; }
  // Of any snapshot ever accepted; 0: none.
  uint64_t max_epoch() const;

  // FAILED_PRECONDITION: a newer epoch has published here.
  absl::Status CheckEpoch(uint64_t version) const ABSL_LOCKS_EXCLUDED(mu_);
  // Takes the snapshot if it is newer than the one held, writes the file, calls the listeners, and
  // returns the version held.  INVALID_ARGUMENT: the digest does not match.  Blocks for the write.
  absl::StatusOr<uint64_t> Publish(Snapshot snapshot) ABSL_LOCKS_EXCLUDED(publish_mu_, mu_);

  // `listener` is called after each publication, from the publishing thread, until it is removed;
  // one that is running then may still run.
  uint64_t AddListener(std::function<void()> listener) ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveListener(uint64_t id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status Write(const Snapshot& snapshot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(publish_mu_);

  const std::string path_;
  const bool synced_;
  std::atomic<uint64_t> write_failures_{0};           // atomic: read by metrics
  absl::Mutex publish_mu_ ABSL_ACQUIRED_BEFORE(mu_);  // one publication at a time; the file
  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  uint64_t newest_listener_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, std::function<void()>> listeners_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SNAPSHOT_STORE_H_
