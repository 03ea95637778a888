#ifndef TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "learner/fused/ppo_engine.h"
#include "learner/rank_group.h"

namespace troupe {

// On GPU number `device`, with all minibatches of a batch in one graph where it has at most some
// thousands of them; needs no other library of CUDA's.  UNIMPLEMENTED: there is no such device, or
// layers are too wide for it, or `ranks` that do not sum on the GPU; INTERNAL names CUDA's error.
// With `ranks`, which outlive it, minibatches are shared as in MakeCpuPpoEngine: one sum of
// gradient and losses for each, captured with the rest, and three small ones for a batch.
absl::StatusOr<std::unique_ptr<PpoEngine>> MakeCudaPpoEngine(const PpoModel& model, int device,
                                                             RankGroup* ranks = nullptr);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_
