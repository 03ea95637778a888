#ifndef TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "learner/fused/ppo_engine.h"

namespace troupe {

// On GPU number `device`, with all minibatches of a batch in one graph where it has at most some
// thousands of them; needs no other library of CUDA's.  UNIMPLEMENTED: there is no such device, or
// layers are too wide for it; INTERNAL names CUDA's error.
absl::StatusOr<std::unique_ptr<PpoEngine>> MakeCudaPpoEngine(const PpoModel& model, int device);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_PPO_ENGINE_H_
