#include "common/batch_split.h"

#include <algorithm>
#include <numeric>

namespace troupe {

std::vector<int64_t> SplitByMass(int64_t num_windows, absl::Span<const double> masses,
                                 std::mt19937_64& random) {
  std::vector<double> ends(masses.size());
  std::partial_sum(masses.begin(), masses.end(), ends.begin());
  std::uniform_real_distribution<double> point(0, ends.back());
  std::vector<int64_t> counts(masses.size());
  for (int64_t i = 0; i < num_windows; ++i) {
    const auto it = std::upper_bound(ends.begin(), ends.end(), point(random));
    // Rounding may put a point on the very end; it belongs to the last shard with any mass.
    const auto last = std::lower_bound(ends.begin(), ends.end(), ends.back());
    ++counts[std::min(it, last) - ends.begin()];
  }
  return counts;
}

}  // namespace troupe
