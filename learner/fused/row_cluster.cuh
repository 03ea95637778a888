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

__device__ inline float* Shared(int offset) { return BlockMemory<float>() + offset; }

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
};

// Stores 16 bytes at `place`, in shared memory, of every block, and has them counted there.
__device__ inline void StoreEverywhere(const RowCluster& cluster, float* place, const float4& v,
                                       const ArrivalBarrier& barrier) {
  if (cluster.size > 1) {
#pragma unroll
    for (int r = 0; r < kMaxClusterSize; ++r) {
      if (r < cluster.size) StoreCounted(r, place, v, barrier);
    }
    return;
  }
  *reinterpret_cast<float4*>(place) = v;
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROW_CLUSTER_CUH_
