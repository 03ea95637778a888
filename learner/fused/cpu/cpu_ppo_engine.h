#ifndef TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_

#include <memory>

#include "learner/fused/cpu/kernels.h"
#include "learner/fused/ppo_engine.h"

namespace troupe {

// On one thread of this machine.  Nothing is allocated in a gradient step.
std::unique_ptr<PpoEngine> MakeCpuPpoEngine(const PpoModel& model,
                                            const cpu::Kernels& kernels = cpu::BestKernels());

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CPU_CPU_PPO_ENGINE_H_
