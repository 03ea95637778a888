#include <cstdlib>
#include <deque>
#include <utility>
#include <vector>

#include "tests/gpu_on_host/cuda_runtime_api.h"

using Work = std::function<void()>;

struct HostGraph {
  std::vector<Work> work;
};
struct HostStream {
  HostGraph* captured = nullptr;
};
struct HostEvent {
  int64_t after = 0;  // so much of what was ever given
};

namespace troupe::gpu_on_host {
namespace {

// What was given to all streams and is not done yet, in the order in which it was given.
thread_local std::deque<Work> waiting;
thread_local int64_t done = 0;

void DoUntil(int64_t number) {
  for (; done < number; ++done) {
    const Work work = std::move(waiting.front());
    waiting.pop_front();
    work();
  }
}
int64_t Given() { return done + static_cast<int64_t>(waiting.size()); }

cudaError_t Allocate(void** memory, size_t bytes) {
  *memory = std::malloc(bytes);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}

}  // namespace

cudaError_t Give(cudaStream_t stream, Work work) {
  if (stream != nullptr && stream->captured != nullptr) {
    stream->captured->work.push_back(std::move(work));
  } else {
    waiting.push_back(std::move(work));
  }
  return cudaSuccess;
}

LaunchShape ShapeOf(const cudaLaunchConfig_t& config) {
  LaunchShape shape{.blocks = config.gridDim.x,
                    .threads = config.blockDim.x,
                    .cluster = 1,
                    .shared_bytes = config.dynamicSmemBytes};
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    if (config.attrs[i].id == cudaLaunchAttributeClusterDimension) {
      shape.cluster = config.attrs[i].val.clusterDim.x;
    }
  }
  return shape;
}

}  // namespace troupe::gpu_on_host

namespace host = troupe::gpu_on_host;

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  std::strcpy(properties->name, "threads of this machine");
  properties->major = 9;
  properties->sharedMemPerBlockOptin = 227 << 10;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  host::DoUntil(host::Given());
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) { return host::Allocate(memory, bytes); }
cudaError_t cudaMallocHost(void** memory, size_t bytes) { return host::Allocate(memory, bytes); }
cudaError_t cudaFree(void* memory) {
  cudaDeviceSynchronize();
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaMemset(void* memory, int byte, size_t bytes) {
  std::memset(memory, byte, bytes);
  return cudaSuccess;
}
// Streams that do not block do not hold it up.
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return host::Give(stream, [=] { std::memcpy(to, from, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = new HostStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return cudaDeviceSynchronize(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return cudaSuccess;  // all is done in the order in which it was given
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  stream->captured = new HostGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = std::exchange(stream->captured, nullptr);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new HostEvent;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->after = host::Given();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  host::DoUntil(event->after);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned flags) {
  *exec = new HostGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const Work& work : graph->work) host::Give(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }
