#ifndef TROUPE_LEARNER_FUSED_CPU_CPU_SAC_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CPU_CPU_SAC_ENGINE_H_

#include <memory>

#include "learner/fused/cpu/kernels.h"
#include "learner/fused/sac_engine.h"
#include "learner/rank_group.h"

namespace troupe {

// An engine that splits each batch over `num_threads` threads, the caller's among them, or over
// fewer where that leaves each with too few rows.  The same state and batches give the same bits
// for the same number of threads and the same kernels.
//
// With `ranks`, which outlives it, the batch of the model is that of all ranks together, of equal
// shares in the order of the ranks.  Each is given the transitions of its share alone, and noise
// for the whole batch; the states of all ranks are the same bits.
std::unique_ptr<SacEngine> MakeCpuSacEngine(const SacModel& model, int num_threads = 1,
                                            const cpu::Kernels& kernels = cpu::BestKernels(),
                                            RankGroup* ranks = nullptr);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CPU_CPU_SAC_ENGINE_H_
