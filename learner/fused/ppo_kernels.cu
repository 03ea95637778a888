#include "learner/fused/ppo_kernels.h"
#include "learner/fused/ppo_program.h"

namespace troupe {
namespace {

// A block of threads of a GPU.
struct GpuBlock {
  double* const shared;
  const int index = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);

  __device__ explicit GpuBlock(double* memory) : shared(memory) {}
  __device__ void Sync() const { __syncthreads(); }
};

__global__ void BeginEpoch(const __grid_constant__ PpoTask task) { PpoBeginEpoch(task); }

__global__ void __launch_bounds__(kPpoThreads)
    Rows(const __grid_constant__ PpoTask task, int minibatch) {
  extern __shared__ double shared[];
  PpoRows(GpuBlock(shared), task, minibatch);
}

__global__ void __launch_bounds__(kPpoThreads)
    Sum(const __grid_constant__ PpoTask task, int minibatch) {
  __shared__ double shared[kPpoThreads];
  PpoSum(GpuBlock(shared), task, minibatch);
}

__global__ void __launch_bounds__(kPpoThreads)
    Descend(const __grid_constant__ PpoTask task, int minibatch) {
  __shared__ double shared[kPpoThreads];
  PpoDescend(GpuBlock(shared), task, minibatch);
}

}  // namespace

cudaError_t LaunchPpoBeginEpoch(const PpoTask& task, cudaStream_t stream) {
  BeginEpoch<<<1, 1, 0, stream>>>(task);
  return cudaGetLastError();
}

cudaError_t LaunchPpoMinibatch(const PpoTask& task, int i, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(PpoSharedBytes(task, kPpoThreads, task.tile_rows));
  Rows<<<2 * task.row_blocks, kPpoThreads, bytes, stream>>>(task, i);
  Sum<<<task.sum_blocks, kPpoThreads, 0, stream>>>(task, i);
  Descend<<<task.sum_blocks, kPpoThreads, 0, stream>>>(task, i);
  return cudaGetLastError();
}

}  // namespace troupe
