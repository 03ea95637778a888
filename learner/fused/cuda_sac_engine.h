#ifndef TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_H_
#define TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "learner/fused/sac_engine.h"
#include "learner/rank_group.h"

namespace troupe {

struct CudaOptions {
  int device = 0;
  // Products as good as float32's; otherwise of tf32 numbers, with float32 sums.
  bool exact = false;
  // Thread blocks that share 16 rows of a batch: 1, 2 or 4; 0: chosen by the batch size.
  int cluster_size = 0;
  // Thread blocks that share the sum over the rows: 1, 2, 4 or 8; 0: chosen by the batch size.
  int parts = 0;
  // A kernel may begin before the one before it has ended.
  bool overlap = true;
  int updates_per_graph = 8;
};

// CUDA devices that there are; 0 also without a driver.
int CudaDeviceCount();
// Such as "NVIDIA H100 80GB HBM3"; empty if there is no such device.
std::string CudaDeviceName(int device);

// On a GPU of compute capability 8.0 or newer; needs no other library of CUDA's.  UNIMPLEMENTED:
// layers too wide for the device's shared memory, or `ranks` that do not sum on the GPU; INTERNAL
// names CUDA's error.  With `ranks`, which outlive it, the batch of the model is that of all ranks
// together, of equal shares: one sum of each gradient over the ranks, captured with the rest.
absl::StatusOr<std::unique_ptr<SacEngine>> MakeCudaSacEngine(const SacModel& model,
                                                             const CudaOptions& options,
                                                             RankGroup* ranks = nullptr);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_H_
