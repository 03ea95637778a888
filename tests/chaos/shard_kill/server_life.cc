#include "tests/chaos/shard_kill/server_life.h"

#include <signal.h>

#include <algorithm>

#include "absl/time/clock.h"

namespace troupe {

ServerLife::ServerLife(const ServerOptions& options)
    : process_(options),
      started_(absl::Now()),
      kill_at_(started_ + kLongestLife),
      killer_([this] { KillWhenDue(); }) {}

ServerLife::~ServerLife() {
  KillNow();
  killer_.join();
}

void ServerLife::KillAt(absl::Time time) {
  absl::MutexLock lock(&mu_);
  kill_at_ = std::min(kill_at_, time);
}

void ServerLife::KillWhenDue() {
  absl::MutexLock lock(&mu_);
  while (kill_at_ > absl::Now()) {
    const absl::Time seen = kill_at_;
    auto changed = [this, seen]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return ChangedSince(seen); };
    mu_.AwaitWithDeadline(absl::Condition(&changed), seen);
  }
  timed_out_ = kill_at_ == started_ + kLongestLife;
  killed_ = true;  // before anybody can notice
  process_.Kill(SIGKILL);
}

bool ServerLife::killed() const {
  absl::MutexLock lock(&mu_);
  return killed_;
}

bool ServerLife::timed_out() const {
  absl::MutexLock lock(&mu_);
  return timed_out_;
}

}  // namespace troupe
