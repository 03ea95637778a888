#ifndef TROUPE_LEARNER_MAKE_ALGORITHM_H_
#define TROUPE_LEARNER_MAKE_ALGORITHM_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/layout.h"
#include "learner/algorithm.h"
#include "learner/rank_group.h"
#include "proto/config.pb.h"

namespace troupe {

// The algorithm that `config.learner` asks for, on its device and with its threads.  Sets up
// LibTorch for the calling thread, from which the algorithm is to be used.  INVALID_ARGUMENT names
// a device that there is not, or a column that the algorithm cannot use.  `ranks`, which outlives
// it: the learners that take its updates together, `config.learner.ranks` of them; null: one alone.
absl::StatusOr<std::unique_ptr<Algorithm>> MakeAlgorithm(const proto::Config& config,
                                                         const Layout& layout,
                                                         RankGroup* ranks = nullptr);

}  // namespace troupe

#endif  // TROUPE_LEARNER_MAKE_ALGORITHM_H_
