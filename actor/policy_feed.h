#ifndef TROUPE_ACTOR_POLICY_FEED_H_
#define TROUPE_ACTOR_POLICY_FEED_H_

#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "actor/env.h"
#include "common/policy.h"
#include "common/snapshot_client.h"

namespace troupe {

// FAILED_PRECONDITION with the numbers: the policy is not for such an environment.
absl::Status CheckFits(const PolicyMetadata& policy, const EnvSpec& spec);

// Turns snapshots into policies beside the loop that uses them, newest wins.
//
// Thread-safe.  One thread waits for snapshots, checks that they fit the environment and builds
// the policies; the user takes the newest whenever it likes.  `subscriber` outlives the feed.
class PolicyFeed final {
 public:
  // `on_over` is called from the feed's thread when the learner's last snapshot has come, and when
  // an error ends the feed.
  PolicyFeed(SnapshotSubscriber& subscriber, const EnvSpec& spec, std::function<void()> on_over);
  ~PolicyFeed();

  // A policy newer than the last one taken, or nullptr.
  std::unique_ptr<Policy> Take() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for one.  CANCELLED after Stop; FAILED_PRECONDITION if a snapshot does not fit the
  // environment or the shards refuse this run.
  absl::StatusOr<std::unique_ptr<Policy>> WaitAndTake() ABSL_LOCKS_EXCLUDED(mu_) {
    return WaitAndTake(absl::InfiniteDuration());
  }
  // The same; nullptr if none came within `timeout`.
  absl::StatusOr<std::unique_ptr<Policy>> WaitAndTake(absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Has the learner's last snapshot come?
  bool run_is_over() const ABSL_LOCKS_EXCLUDED(mu_);
  // The error that ended the feed, or OK.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();
  absl::Status Accept(const SnapshotPtr& snapshot) ABSL_LOCKS_EXCLUDED(mu_);
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  SnapshotSubscriber& subscriber_;
  const EnvSpec spec_;
  const std::function<void()> on_over_;

  mutable absl::Mutex mu_;
  std::unique_ptr<Policy> newest_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool run_is_over_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last: sees the rest constructed
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_POLICY_FEED_H_
