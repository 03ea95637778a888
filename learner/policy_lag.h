#ifndef TROUPE_LEARNER_POLICY_LAG_H_
#define TROUPE_LEARNER_POLICY_LAG_H_

#include <cstdint>
#include <map>
#include <string>

#include "common/version.h"
#include "common/window_batch.h"

namespace troupe {

// How far the policies that drew a learner's steps are behind its newest one, over batches.
// Unit: versions; a policy of a learner before this one is further behind than any of its own.
class PolicyLag final {
 public:
  // `newest`: the last version that was published before the batch is learned from.
  void Add(const WindowBatch& batch, const PolicyVersion& newest);

  // "policy_lag_min" and "policy_lag_max" of all steps since the last Clear; empty without any.
  std::map<std::string, double> Statistics() const;
  void Clear() { *this = {}; }

 private:
  bool empty_ = true;
  int64_t min_ = 0;
  int64_t max_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_POLICY_LAG_H_
