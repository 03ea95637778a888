#ifndef TROUPE_TESTS_GPU_ON_HOST_CUDA_RUNTIME_API_H_
#define TROUPE_TESTS_GPU_ON_HOST_CUDA_RUNTIME_API_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "tests/gpu_on_host/threads.h"

// As much of CUDA as the fused engines use, on a machine without a GPU, for tests: in the place of
// CUDA's own header of this name, and with C++ for CUDA's words.  The "GPU" is one of compute
// capability 9.0.  What is given to a stream is done when somebody waits for it, and not before.
// New memory holds no numbers.  Each thread of this machine that uses it has a "GPU" of its own.

#define __device__
#define __global__
#define __grid_constant__
#define __noinline__  // libstdc++ says __attribute__((__noinline__))
#define __launch_bounds__(...)
#define __builtin_assume(what) static_cast<void>(0)

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Of the thread whose turn it is.
extern constinit thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { troupe::gpu_on_host::SyncBlock(); }
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline float __shfl_xor_sync(unsigned, float x, int distance) {
  const uint32_t bits = __float_as_uint(x);
  const int from = troupe::gpu_on_host::Lane() ^ distance;
  return __uint_as_float(troupe::gpu_on_host::Exchange(&bits, 1)[from][0]);
}
inline int __ffs(int x) { return __builtin_ffs(x); }
template <typename T>
T __ldg(const T* place) {
  return *place;
}
inline int min(int a, int b) { return std::min(a, b); }

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID {
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeProgrammaticStreamSerialization
};
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

using cudaStream_t = struct HostStream*;
using cudaEvent_t = struct HostEvent*;
using cudaGraph_t = struct HostGraph*;
using cudaGraphExec_t = struct HostGraph*;

struct cudaDeviceProp {
  char name[256];
  int major;
  size_t sharedMemPerBlockOptin;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemset(void* memory, int byte, size_t bytes);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);

namespace troupe::gpu_on_host {
// To the stream, or to the graph that is captured from it.
cudaError_t Give(cudaStream_t stream, std::function<void()> work);
LaunchShape ShapeOf(const cudaLaunchConfig_t& config);
}  // namespace troupe::gpu_on_host

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*, const cudaLaunchConfig_t* at) {
  *clusters = 132 / static_cast<int>(troupe::gpu_on_host::ShapeOf(*at).cluster);
  return cudaSuccess;
}
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const troupe::gpu_on_host::LaunchShape shape = troupe::gpu_on_host::ShapeOf(*config);
  if (shape.blocks == 0 || shape.threads == 0 || shape.threads > 1024 ||
      shape.blocks % shape.cluster != 0) {
    return cudaErrorInvalidValue;
  }
  return troupe::gpu_on_host::Give(config->stream, [shape, kernel, arguments...] {
    troupe::gpu_on_host::RunThreads(shape, [&] { kernel(arguments...); });
  });
}

#endif  // TROUPE_TESTS_GPU_ON_HOST_CUDA_RUNTIME_API_H_
