#ifndef TROUPE_LEARNER_WHOLE_MINIBATCHES_H_
#define TROUPE_LEARNER_WHOLE_MINIBATCHES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/fused/ppo_formulas.h"
#include "learner/rank_group.h"
#include "proto/config.pb.h"

namespace troupe {

// What is to be known of minibatches that lie one after another in `advantages`, sizes[i] steps of
// this rank in each: how many steps all ranks have in it, and what standardizes its advantages, by
// the unbiased variance.  Two sums over the `ranks`, null for one alone, each of which has as many
// minibatches.  Errors are RankGroup's.
absl::StatusOr<std::vector<WholeMinibatch>> LookAtMinibatches(const proto::Ppo& config,
                                                              absl::Span<const float> advantages,
                                                              absl::Span<const int64_t> sizes,
                                                              RankGroup* ranks);

}  // namespace troupe

#endif  // TROUPE_LEARNER_WHOLE_MINIBATCHES_H_
