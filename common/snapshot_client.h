#ifndef TROUPE_COMMON_SNAPSHOT_CLIENT_H_
#define TROUPE_COMMON_SNAPSHOT_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "common/shard_directory.h"
#include "common/shard_link.h"
#include "common/snapshot.h"
#include "grpcpp/client_context.h"

namespace troupe {

struct SnapshotClientOptions {
  std::vector<std::string> shards;  // host:port; each is one, unless there is a directory
  std::shared_ptr<ShardDirectory> directory = {};
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  std::string run;
  int64_t max_snapshot_bytes = int64_t{1} << 30;
  absl::Duration reconnect_min = absl::Milliseconds(50);
  absl::Duration reconnect_max = absl::Seconds(2);
};

// Keeps the newest policy snapshot that any shard sends, size and digest checked.
//
// Thread-safe.  One background thread subscribes to the preferred shard and, while that is gone, to
// the others in turn.  Snapshots are shared and immutable; the old ones are freed by their users.
class SnapshotSubscriber final {
 public:
  struct Stats {
    int64_t received = 0;    // snapshots handed out
    int64_t rejected = 0;    // wrong size, digest, run or order of versions
    int64_t reconnects = 0;  // subscriptions that broke or failed
  };

  // `preferred_shard`: as ShardDirectory::Choose.
  // INVALID_ARGUMENT without shards; FAILED_PRECONDITION as MakeChannel.
  static absl::StatusOr<std::unique_ptr<SnapshotSubscriber>> Create(SnapshotClientOptions options,
                                                                    int preferred_shard);
  ~SnapshotSubscriber();

  // nullptr until the first one is there.
  SnapshotPtr Newest() const ABSL_LOCKS_EXCLUDED(mu_);

  // Waits for a snapshot of a version above `version`.  DEADLINE_EXCEEDED says whom it waited for;
  // CANCELLED after Stop; the permanent error of a shard (another run) at once.
  absl::StatusOr<SnapshotPtr> WaitNewer(uint64_t version, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mu_);

  // OK, or the permanent error that ended the subscription.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);
  Stats stats() const ABSL_LOCKS_EXCLUDED(mu_);

  // Wakes every waiter, for good.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  SnapshotSubscriber(SnapshotClientOptions options, int preferred_shard);

  void Run();
  void OnShardsChanged() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SubscribeTo(size_t shard);
  absl::Status Accept(std::shared_ptr<Snapshot> snapshot) ABSL_LOCKS_EXCLUDED(mu_);
  bool PauseUntil(absl::Time time) ABSL_LOCKS_EXCLUDED(mu_);

  const SnapshotClientOptions options_;
  const uint64_t preferred_shard_;
  int listener_ = 0;  // of the directory

  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  absl::Status last_break_ ABSL_GUARDED_BY(mu_);
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mu_) = nullptr;  // lives on the thread's stack, ...
  const ShardLink* link_ ABSL_GUARDED_BY(mu_) = nullptr;      // ... as does where it goes
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  Stats stats_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last, so that it sees the rest constructed
};

// Sends each shard the newest snapshot, in the background.
//
// Thread-safe.  One thread a shard; a shard that is slow skips versions, one that comes back gets
// the newest again.  Nothing but the newest snapshot and those being sent is kept.
class SnapshotPublisher final {
 public:
  static absl::StatusOr<std::unique_ptr<SnapshotPublisher>> Create(SnapshotClientOptions options);
  ~SnapshotPublisher();

  // Returns at once.  FAILED_PRECONDITION: a shard has seen a newer epoch, the caller must stop;
  // INVALID_ARGUMENT: the version does not grow, or a shard found the snapshot malformed.
  absl::Status Publish(SnapshotPtr snapshot) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until at least one shard holds `version` or a newer one and each other shard does too or
  // could not be reached when it was last tried.  DEADLINE_EXCEEDED names the shards that miss it.
  absl::Status WaitPublished(uint64_t version, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);

  // OK, or the permanent error that publishing met.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);
  // The version that each shard is known to hold; 0: none.
  std::vector<uint64_t> published() const ABSL_LOCKS_EXCLUDED(mu_);

  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Shard {
    uint64_t version = 0;                 // acknowledged by the shard since it last came back
    absl::Status last;                    // of the last attempt
    bool tried = false;                   // since the newest snapshot was published
    grpc::ClientContext* call = nullptr;  // lives on the stack of the shard's thread, as does ...
    const ShardLink* link = nullptr;      // ... where it goes
  };

  explicit SnapshotPublisher(SnapshotClientOptions options);

  void OnShardsChanged() ABSL_LOCKS_EXCLUDED(mu_);
  void Run(size_t index);
  SnapshotPtr AwaitWork(size_t index, const ShardLink& link) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Send(size_t index, const ShardLink& link, const Snapshot& snapshot)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Record(size_t index, uint64_t version, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  bool Settled(uint64_t version) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const SnapshotClientOptions options_;
  int listener_ = 0;  // of the directory

  mutable absl::Mutex mu_;
  SnapshotPtr newest_ ABSL_GUARDED_BY(mu_);
  std::vector<Shard> shards_ ABSL_GUARDED_BY(mu_);
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;

  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_COMMON_SNAPSHOT_CLIENT_H_
