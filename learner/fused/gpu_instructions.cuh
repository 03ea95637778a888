#ifndef TROUPE_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_
#define TROUPE_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace troupe {

// Everything that the kernels say in the GPU's own instructions.  tests/gpu_on_host has a header of
// the same name, which says it in C++, so that the kernels run on a machine without a GPU.

// What the threads of a block share; its size is given at the launch.
template <typename T>
__device__ inline T* BlockMemory() {
  extern __shared__ float4 block_memory[];
  return reinterpret_cast<T*>(block_memory);
}

// sum[16, 8] += a[16, 8] b[8, 8], of tf32 numbers, by a warp.  With g = lane / 4 and t = lane % 4 a
// thread has of a the rows g, g + 8 at column t, then both at t + 4; of b the rows t, t + 4 at
// column g; of the sum the columns 2 t, 2 t + 1 of row g, then of row g + 8.
__device__ inline void MultiplyTf32(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A kernel may begin while the one before it runs (LaunchOptions::overlap).  Before this it must
// not read what that one writes, nor write at all to the GPU's memory; what older kernels wrote is
// there. The next kernel may begin after it.
__device__ inline void AwaitPreviousKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// All blocks of the cluster have come here, and see what the others wrote before.
__device__ inline void AwaitCluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The same, and all see each other's ArrivalBarriers.
__device__ inline void AwaitClusterWithBarriers() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  AwaitCluster();
}

__device__ inline uint32_t SharedAddress(const void* place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}

// What block `rank` of the cluster has at `local`, a place in shared memory.
__device__ inline float4 LoadFrom(int rank, const float4* local) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float4 value;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SharedAddress(local)), "r"(rank));
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(there)
               : "memory");
  return value;
#else
  return *local;
#endif
}

// Counts the bytes that blocks of the cluster store here, once: an mbarrier.
struct ArrivalBarrier {
  uint64_t state;

  __device__ void Expect(int bytes) {
#if __CUDA_ARCH__ >= 900
    const uint32_t here = SharedAddress(&state);
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(here) : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(here), "r"(bytes)
                 : "memory");
#endif
  }
  // Returns once all of them are there.
  __device__ void Wait() const {
#if __CUDA_ARCH__ >= 900
    uint32_t done = 0;
    while (done == 0) {
      asm volatile(
          "{\n"
          ".reg .pred p;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\n"
          "selp.u32 %0, 1, 0, p;\n"
          "}\n"
          : "=r"(done)
          : "r"(SharedAddress(&state))
          : "memory");
    }
#endif
  }
};

// Stores 16 bytes at `place` in the shared memory of block `rank`, and has them counted by its
// barrier; both are named by where they lie in this block's memory.
__device__ inline void StoreCounted(int rank, float* place, const float4& v,
                                    const ArrivalBarrier& barrier) {
#if __CUDA_ARCH__ >= 900
  uint32_t there, counter_there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SharedAddress(place)), "r"(rank));
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(counter_there)
      : "r"(SharedAddress(&barrier.state)), "r"(rank));
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], "
      "{%1, %2, %3, %4}, [%5];" ::"r"(there),
      "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(counter_there)
      : "memory");
#endif
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_GPU_INSTRUCTIONS_CUH_
