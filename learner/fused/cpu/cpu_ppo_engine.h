#ifndef TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_

#include <memory>

#include "learner/fused/cpu/kernels.h"
#include "learner/fused/ppo_engine.h"
#include "learner/rank_group.h"

namespace troupe {

// On threads of this machine: on one, or the policy on one and the value function on another, with
// the same result.  Nothing is allocated in a gradient step.  With `ranks`, which outlive it, each
// one's minibatch is a part of one that is shared: one sum of the gradient over the ranks for each,
// and two small ones for each epoch.  REQUIRES then: each has as many minibatches.
std::unique_ptr<PpoEngine> MakeCpuPpoEngine(const PpoModel& model, int num_threads = 1,
                                            RankGroup* ranks = nullptr,
                                            const cpu::Kernels& kernels = cpu::BestKernels());

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_
