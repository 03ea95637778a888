// Stands in for the GPU engines where there was no CUDA compiler.
#include "learner/fused/cuda_ppo_engine.h"
#include "learner/fused/cuda_sac_engine.h"

namespace troupe {

int CudaDeviceCount() { return 0; }
std::string CudaDeviceName(int device) { return ""; }

absl::StatusOr<std::unique_ptr<SacEngine>> MakeCudaSacEngine(const SacModel& model,
                                                             const CudaOptions& options,
                                                             RankGroup* ranks) {
  return absl::UnimplementedError("this learner was built without CUDA");
}

absl::StatusOr<std::unique_ptr<PpoEngine>> MakeCudaPpoEngine(const PpoModel& model, int device,
                                                             RankGroup* ranks) {
  return absl::UnimplementedError("this learner was built without CUDA");
}

}  // namespace troupe
