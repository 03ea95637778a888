#ifndef TROUPE_LEARNER_FUSED_PPO_KERNELS_H_
#define TROUPE_LEARNER_FUSED_PPO_KERNELS_H_

#include <cuda_runtime_api.h>

#include "learner/fused/ppo_task.h"

namespace troupe {

// Threads of a block of PPO's kernels.
inline constexpr int kPpoThreads = 256;

// The programs of ppo_program.h as kernels, in the order of `stream`.
cudaError_t LaunchPpoBeginEpoch(const PpoTask& task, cudaStream_t stream);
// PpoRows and PpoSum of minibatch `i`, if wanted with PpoSquares in the same kernel.
cudaError_t LaunchPpoGradient(const PpoTask& task, int i, bool with_squares, cudaStream_t stream);
cudaError_t LaunchPpoSquares(const PpoTask& task, int i, cudaStream_t stream);
cudaError_t LaunchPpoDescend(const PpoTask& task, int i, cudaStream_t stream);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_KERNELS_H_
