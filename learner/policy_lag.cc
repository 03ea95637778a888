#include "learner/policy_lag.h"

#include <algorithm>

#include "common/layout.h"

namespace troupe {

void PolicyLag::Add(const WindowBatch& batch, const PolicyVersion& newest) {
  for (int64_t window = 0; window < batch.num_windows; ++window) {
    for (int64_t t = 0; t < batch.window_length; ++t) {
      const RowHeader header = ReadRowHeader(batch.row(window, t));
      if (IsFinal(header.flags)) continue;
      const auto lag = static_cast<int64_t>(newest.Packed() - header.policy_version);
      min_ = empty_ ? lag : std::min(min_, lag);
      max_ = empty_ ? lag : std::max(max_, lag);
      empty_ = false;
    }
  }
}

std::map<std::string, double> PolicyLag::Statistics() const {
  if (empty_) return {};
  return {{"policy_lag_min", static_cast<double>(min_)},
          {"policy_lag_max", static_cast<double>(max_)}};
}

}  // namespace troupe
