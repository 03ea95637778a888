#include "learner/fused/cuda_memory.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace troupe {

namespace {

constexpr int kPieces = 8;

}  // namespace

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

DeviceArena::~DeviceArena() {
  for (void* block : blocks_) cudaFree(block);
}

void* DeviceArena::AllocateBytes(int64_t bytes) {
  if (!status_.ok()) return nullptr;
  void* block = nullptr;
  status_ = CudaStatus(cudaMalloc(&block, bytes),
                       absl::StrCat("allocating ", bytes, " bytes of the GPU's memory"));
  if (!status_.ok()) return nullptr;
  blocks_.push_back(block);
  status_ = CudaStatus(cudaMemset(block, 0, bytes), "clearing memory of the GPU");
  return block;
}

UploadRing::~UploadRing() {
  for (const Piece& piece : pieces_) {
    cudaEventDestroy(piece.copied);
    cudaFreeHost(piece.memory);
  }
}

absl::Status UploadRing::Open() {
  for (int i = 0; i < kPieces; ++i) {
    Piece piece;
    absl::Status status =
        CudaStatus(cudaMallocHost(&piece.memory, kPieceBytes), "allocating pinned memory");
    if (!status.ok()) return status;
    status = CudaStatus(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming),
                        "making an event");
    if (!status.ok()) {
      cudaFreeHost(piece.memory);
      return status;
    }
    pieces_.push_back(piece);
  }
  return absl::OkStatus();
}

absl::Status UploadRing::Upload(const void* from, int64_t bytes, void* to, cudaStream_t stream) {
  for (int64_t done = 0; done < bytes; done += kPieceBytes) {
    const absl::Status status =
        UploadPiece(static_cast<const char*>(from) + done, std::min(kPieceBytes, bytes - done),
                    static_cast<char*>(to) + done, stream);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status UploadRing::UploadPiece(const void* from, int64_t bytes, void* to,
                                     cudaStream_t stream) {
  const Piece& piece = pieces_[next_];
  next_ = (next_ + 1) % pieces_.size();
  absl::Status status = CudaStatus(cudaEventSynchronize(piece.copied), "waiting for a copy");
  if (!status.ok()) return status;
  std::memcpy(piece.memory, from, bytes);
  status = CudaStatus(cudaMemcpyAsync(to, piece.memory, bytes, cudaMemcpyHostToDevice, stream),
                      "copying to the GPU");
  if (!status.ok()) return status;
  return CudaStatus(cudaEventRecord(piece.copied, stream), "recording an event");
}

}  // namespace troupe
