#ifndef TROUPE_LEARNER_FUSED_CUDA_REPLICA_STORE_H_
#define TROUPE_LEARNER_FUSED_CUDA_REPLICA_STORE_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "learner/fused/cuda_memory.h"
#include "learner/fused/sac_kernels.h"
#include "learner/replica_store.h"

namespace troupe {

// A replica in a GPU's memory.  Everything happens in the order of one stream, which updates are
// launched on, too.
class CudaReplicaStore final : public ReplicaStore {
 public:
  // `stream` and `uploads` outlive it.  RESOURCE_EXHAUSTED names the bytes.
  static absl::StatusOr<std::unique_ptr<CudaReplicaStore>> Create(const ReplicaShape& shape,
                                                                  cudaStream_t stream,
                                                                  UploadRing& uploads);

  const ReplicaShape& shape() const override { return shape_; }
  absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) override;
  absl::Status WriteTransitions(uint64_t first_number,
                                absl::Span<const ReplicaTransition> transitions) override;
  absl::Status SetRange(uint64_t tail, uint64_t head) override;

  // What an update that is launched now draws from.
  const TransitionView& view() const { return view_; }

 private:
  CudaReplicaStore(const ReplicaShape& shape, cudaStream_t stream, UploadRing& uploads);

  const ReplicaShape shape_;
  const cudaStream_t stream_;
  UploadRing& uploads_;
  DeviceArena arena_;
  float* const rows_;
  DeviceTransition* const transitions_;
  TransitionView view_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_REPLICA_STORE_H_
