#ifndef TROUPE_COMMON_BATCH_SPLIT_H_
#define TROUPE_COMMON_BATCH_SPLIT_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"

namespace troupe {

// How many of `num_windows` independent draws fall on each shard, if each draw picks a shard with
// probability masses[i] / sum: one multinomial sample.  With draws inside a shard that are
// proportional to mass as well, the batch is drawn exactly as from the union of the shards.
// REQUIRES: no mass is negative, one is positive.
std::vector<int64_t> SplitByMass(int64_t num_windows, absl::Span<const double> masses,
                                 std::mt19937_64& random);

}  // namespace troupe

#endif  // TROUPE_COMMON_BATCH_SPLIT_H_
