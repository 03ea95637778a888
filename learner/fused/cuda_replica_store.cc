#include "learner/fused/cuda_replica_store.h"

#include <algorithm>

#include "absl/memory/memory.h"

namespace troupe {

static_assert(sizeof(DeviceTransition) == sizeof(ReplicaTransition));

absl::StatusOr<std::unique_ptr<CudaReplicaStore>> CudaReplicaStore::Create(
    const ReplicaShape& shape, cudaStream_t stream, UploadRing& uploads) {
  auto store = absl::WrapUnique(new CudaReplicaStore(shape, stream, uploads));
  absl::Status status = store->arena_.status();
  status.Update(CudaStatus(cudaDeviceSynchronize(), "clearing the replica"));
  if (!status.ok()) return status;
  return store;
}

CudaReplicaStore::CudaReplicaStore(const ReplicaShape& shape, cudaStream_t stream,
                                   UploadRing& uploads)
    : shape_(shape),
      stream_(stream),
      uploads_(uploads),
      rows_(arena_.Allocate<float>(shape.capacity * shape.row_floats())),
      transitions_(arena_.Allocate<DeviceTransition>(shape.capacity)) {
  view_.rows = rows_;
  view_.transitions = transitions_;
  view_.capacity = shape.capacity;
}

absl::Status CudaReplicaStore::WriteRows(uint32_t first_slot, absl::Span<const float> rows) {
  return uploads_.Upload(rows.data(), static_cast<int64_t>(rows.size() * sizeof(float)),
                         rows_ + first_slot * shape_.row_floats(), stream_);
}

absl::Status CudaReplicaStore::WriteTransitions(uint64_t first_number,
                                                absl::Span<const ReplicaTransition> transitions) {
  while (!transitions.empty()) {
    const uint64_t slot = first_number % shape_.capacity;
    const auto part =
        transitions.first(std::min<uint64_t>(transitions.size(), shape_.capacity - slot));
    const absl::Status status =
        uploads_.Upload(part.data(), static_cast<int64_t>(part.size() * sizeof(ReplicaTransition)),
                        transitions_ + slot, stream_);
    if (!status.ok()) return status;
    first_number += part.size();
    transitions.remove_prefix(part.size());
  }
  return absl::OkStatus();
}

absl::Status CudaReplicaStore::SetRange(uint64_t tail, uint64_t head) {
  view_.first = static_cast<uint32_t>(tail % shape_.capacity);
  view_.count = static_cast<uint32_t>(head - tail);
  return absl::OkStatus();
}

}  // namespace troupe
