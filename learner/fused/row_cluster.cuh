#ifndef TROUPE_LEARNER_FUSED_ROW_CLUSTER_CUH_
#define TROUPE_LEARNER_FUSED_ROW_CLUSTER_CUH_

#include "learner/fused/packed_network.h"
#include "learner/fused/sac_kernels.h"
#include "learner/fused/tensor_core.cuh"

namespace troupe {

// A cluster of thread blocks that takes kTileRows rows through networks.  Every block holds the
// inputs of a layer for all rows, computes a part of its outputs, and writes these into the shared
// memory of all blocks; then all wait for each other.

inline constexpr int kRowThreads = 512;
inline constexpr int kRowWarps = kRowThreads / 32;
static_assert(kRowWarps == kTileRows);

extern __shared__ float4 shared_memory[];

__device__ inline float* Shared(int offset) {
  return reinterpret_cast<float*>(shared_memory) + offset;
}

struct RowCluster {
  int size, rank;  // thread blocks; this one's number
  int first_row;   // of the batch

  __device__ explicit RowCluster(int cluster_size) : size(cluster_size) {
    const int block = static_cast<int>(blockIdx.x);
    rank = block & (size - 1);
    first_row = (block >> Log2(size)) * kTileRows;
  }

  // Whether this block is the one to write down row `row`.
  __device__ bool Writes(int row) const { return (row & (size - 1)) == rank; }
  // Of `width` columns, whether this block keeps column `column`.
  __device__ bool Keeps(int column, int width) const {
    const int part = width >> Log2(size);
    return column >= rank * part && column < (rank + 1) * part;
  }

  // All blocks of the cluster have begun, and see each other's barriers, after this.
  __device__ void AwaitAll() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  }
};

__device__ inline uint32_t SharedAddress(const void* place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(place));
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

// Stores 16 bytes at `place`, in shared memory, of every block, and has them counted there.
__device__ inline void StoreEverywhere(const RowCluster& cluster, float* place, const float4& v,
                                       const ArrivalBarrier& barrier) {
#if __CUDA_ARCH__ >= 900
  if (cluster.size > 1) {
    const uint32_t here = SharedAddress(place), counter = SharedAddress(&barrier.state);
#pragma unroll
    for (int r = 0; r < kMaxClusterSize; ++r) {
      if (r >= cluster.size) break;
      uint32_t there, counter_there;
      asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(r));
      asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counter_there) : "r"(counter), "r"(r));
      asm volatile(
          "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], "
          "{%1, %2, %3, %4}, [%5];" ::"r"(there),
          "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(counter_there)
          : "memory");
    }
    return;
  }
#endif
  *reinterpret_cast<float4*>(place) = v;
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROW_CLUSTER_CUH_
