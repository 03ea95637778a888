#include "learner/fused/gpu_instructions.cuh"
#include "learner/fused/ppo_kernels.h"
#include "learner/fused/ppo_program.h"

namespace troupe {
namespace {

// Of blocks that add up a number of each thread's.
constexpr size_t kSumBytes = kPpoThreads * sizeof(double);

// A block of threads of a GPU.
struct GpuBlock {
  double* const shared = BlockMemory<double>();
  const int index = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);

  __device__ void Sync() const { __syncthreads(); }
};

__global__ void BeginEpoch(const __grid_constant__ PpoTask task) { PpoBeginEpoch(task); }

__global__ void __launch_bounds__(kPpoThreads)
    Rows(const __grid_constant__ PpoTask task, int minibatch) {
  PpoRows(GpuBlock(), task, minibatch);
}

__global__ void __launch_bounds__(kPpoThreads)
    Sum(const __grid_constant__ PpoTask task, int minibatch, bool with_squares) {
  PpoSum(GpuBlock(), task, minibatch);
  if (with_squares) PpoSquares(GpuBlock(), task, minibatch);
}

__global__ void __launch_bounds__(kPpoThreads)
    Squares(const __grid_constant__ PpoTask task, int minibatch) {
  PpoSquares(GpuBlock(), task, minibatch);
}

__global__ void __launch_bounds__(kPpoThreads)
    Descend(const __grid_constant__ PpoTask task, int minibatch) {
  PpoDescend(GpuBlock(), task, minibatch);
}

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), int blocks, int threads, size_t shared_bytes,
                   cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace

cudaError_t LaunchPpoBeginEpoch(const PpoTask& task, cudaStream_t stream) {
  return Launch(BeginEpoch, 1, 1, 0, stream, task);
}

cudaError_t LaunchPpoGradient(const PpoTask& task, int i, bool with_squares, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(PpoSharedBytes(task, task.tile_rows));
  const cudaError_t error = Launch(Rows, 2 * task.row_blocks, kPpoThreads, bytes, stream, task, i);
  if (error != cudaSuccess) return error;
  return Launch(Sum, task.sum_blocks, kPpoThreads, kSumBytes, stream, task, i, with_squares);
}

cudaError_t LaunchPpoSquares(const PpoTask& task, int i, cudaStream_t stream) {
  return Launch(Squares, task.sum_blocks, kPpoThreads, kSumBytes, stream, task, i);
}

cudaError_t LaunchPpoDescend(const PpoTask& task, int i, cudaStream_t stream) {
  return Launch(Descend, task.sum_blocks, kPpoThreads, kSumBytes, stream, task, i);
}

}  // namespace troupe
