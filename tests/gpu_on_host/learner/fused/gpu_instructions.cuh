#ifndef TROUPE_TESTS_GPU_ON_HOST_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_
#define TROUPE_TESTS_GPU_ON_HOST_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_

#include <cstdint>

#include "tests/gpu_on_host/cuda_runtime_api.h"

namespace troupe {

// learner/fused/gpu_instructions.cuh for a machine without a GPU; what each is for stands there.

inline bool __isGlobal(const void*) { return true; }

template <typename T>
T* BlockMemory() {
  return static_cast<T*>(gpu_on_host::SharedMemory());
}

inline void MultiplyTf32(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&sum)[4]) {
  const uint32_t given[] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const gpu_on_host::WarpWords& all = gpu_on_host::Exchange(given, 6);
  const int g = gpu_on_host::Lane() / 4, t = gpu_on_host::Lane() % 4;
  // Tensor cores leave out the last 13 bits.
  const auto number = [](uint32_t bits) { return __uint_as_float(bits & 0xffffe000); };
  for (int i = 0; i < 4; ++i) {
    const int second_row = i / 2, column = 2 * t + i % 2;
    for (int k = 0; k < 8; ++k) {
      sum[i] += number(all[g * 4 + k % 4][k / 4 * 2 + second_row]) *
                number(all[column * 4 + k % 4][4 + k / 4]);
    }
  }
}

inline void AwaitPreviousKernel() {}  // it is done
inline void AwaitCluster() { gpu_on_host::SyncCluster(); }
inline void AwaitClusterWithBarriers() { gpu_on_host::SyncCluster(); }

inline float4 LoadFrom(int rank, const float4* local) {
  return *static_cast<const float4*>(gpu_on_host::InBlock(rank, local));
}

struct ArrivalBarrier {
  uint64_t state;

  void Expect(int bytes) { state = bytes; }
  void Wait() const { gpu_on_host::AwaitArrivals(&state); }
};

inline void StoreCounted(int rank, float* place, const float4& v, const ArrivalBarrier& barrier) {
  gpu_on_host::SendTo(rank, gpu_on_host::InBlock(rank, place), &v,
                      static_cast<uint64_t*>(gpu_on_host::InBlock(rank, &barrier.state)));
}

}  // namespace troupe

#endif  // TROUPE_TESTS_GPU_ON_HOST_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_
