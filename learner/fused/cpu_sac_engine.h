#ifndef TROUPE_LEARNER_FUSED_CPU_SAC_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CPU_SAC_ENGINE_H_

#include <memory>

#include "learner/fused/sac_engine.h"

namespace troupe {

// `num_threads`: of one update, the calling one included.
std::unique_ptr<SacEngine> MakeCpuSacEngine(const SacModel& model, int num_threads);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CPU_SAC_ENGINE_H_
