#ifndef TROUPE_LEARNER_SHARED_SUMS_H_
#define TROUPE_LEARNER_SHARED_SUMS_H_

#include <torch/torch.h>

#include "absl/status/status.h"
#include "learner/rank_group.h"

namespace troupe {

// Replaces `values`, contiguous float32, by their sums over all ranks: on a GPU without a way
// through the host where the ranks have one.  Errors are RankGroup's.
absl::Status SumOverRanks(const torch::Tensor& values, RankGroup& ranks);

}  // namespace troupe

#endif  // TROUPE_LEARNER_SHARED_SUMS_H_
