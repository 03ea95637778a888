#ifndef TROUPE_LEARNER_FUSED_CUDA_MEMORY_H_
#define TROUPE_LEARNER_FUSED_CUDA_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

// INTERNAL with what was tried and CUDA's own words; RESOURCE_EXHAUSTED where memory lacked.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

// Memory of a GPU, all zero at first, that lives as long as this.  Not thread-safe.
class DeviceArena final {
 public:
  DeviceArena() = default;
  ~DeviceArena();
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  // Null after a failure, which status() keeps.
  template <typename T>
  T* Allocate(int64_t n) {
    return static_cast<T*>(AllocateBytes(n * static_cast<int64_t>(sizeof(T))));
  }
  const absl::Status& status() const { return status_; }

 private:
  void* AllocateBytes(int64_t bytes);

  std::vector<void*> blocks_;
  absl::Status status_;
};

// Copies to a GPU that return at once: through a few pieces of pinned memory, used in turn.
// Not thread-safe.
class UploadRing final {
 public:
  static constexpr int64_t kPieceBytes = int64_t{1} << 20;

  UploadRing() = default;
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  absl::Status Open();
  // In the order of `stream`; `from` is free on return.
  absl::Status Upload(const void* from, int64_t bytes, void* to, cudaStream_t stream);

 private:
  struct Piece {
    void* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };
  absl::Status UploadPiece(const void* from, int64_t bytes, void* to, cudaStream_t stream);

  std::vector<Piece> pieces_;
  size_t next_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_MEMORY_H_
