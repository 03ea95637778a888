#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_PACE_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_PACE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace troupe {

// Keeps writers within so many rows of the slowest, over all lives of the server: a stream all of
// whose rows were evicted is one that a restarted server does not know.  Thread-safe.
class Pace final {
 public:
  Pace(int writers, uint64_t lead_rows) : rows_(writers, 0), lead_rows_(lead_rows) {}

  void Begin() {
    absl::MutexLock lock(&mu_);
    over_ = false;
  }
  // Lets everybody go.
  void End() {
    absl::MutexLock lock(&mu_);
    over_ = true;
  }
  void Set(int writer, uint64_t rows) {
    absl::MutexLock lock(&mu_);
    rows_[writer] = rows;
  }
  // Says that `writer` has sent so many rows; returns when it may send more.
  void Await(int writer, uint64_t rows) {
    absl::MutexLock lock(&mu_);
    rows_[writer] = rows;
    auto may_go = [this, rows]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return over_ || rows <= *std::min_element(rows_.begin(), rows_.end()) + lead_rows_;
    };
    mu_.Await(absl::Condition(&may_go));
  }

 private:
  absl::Mutex mu_;
  std::vector<uint64_t> rows_ ABSL_GUARDED_BY(mu_);
  const uint64_t lead_rows_;
  bool over_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_PACE_H_
