#ifndef TROUPE_LEARNER_FUSED_TILE_GRADIENT_CUH_
#define TROUPE_LEARNER_FUSED_TILE_GRADIENT_CUH_

#include "learner/fused/sac_kernels.h"
#include "learner/fused/tensor_core.cuh"

namespace troupe {

// The gradient of kTile x kTile weights and of kTile biases, as sums over rows by a block of
// kDescendThreads threads.

inline constexpr int kDescendThreads = 256, kDescendWarps = kDescendThreads / 32;
inline constexpr int kTile = 32;  // parameters along k and along n that a block has
static_assert(kTile == kHeadPadding);

// Sums of a block's warps, each over other rows.  Place [v][lane] has, with g = lane / 4 and t =
// lane % 4, the output 16 (v / 4) + 4 t + v % 4 of the tile from inputs 2 g, 2 g + 1, 16 + 2 g, 17
// + 2 g.
struct PartialSums {
  float4 of_weights[kDescendWarps][kTile / 4][32];
  float of_bias[kDescendWarps][kTile];
};

// What a thread needs of 16 rows: of rows p and p + 8, for p = t and t + 4, two neighbouring inputs
// and outputs, in two places each.
struct RowOperands {
  float4 x[2][2], dy[2][2];  // [p][place]

  __device__ void Load(const float* x_rows, int x_stride, const float* dy_rows, int dy_stride) {
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        x[p][i] = *reinterpret_cast<const float4*>(x_rows + p * 8 * x_stride + i * 32);
        dy[p][i] = *reinterpret_cast<const float4*>(dy_rows + p * 8 * dy_stride + i * 32);
      }
    }
  }
};

// A thread's part of x^T dy for a tile.
template <bool kExact>
struct TileGradient {
  float sums[2][4][4] = {};  // [16 inputs][8 outputs], spread as in Multiply()
  float bias[4] = {};

  __device__ void Add(const RowOperands& rows, bool with_bias) {
    using F = Factor<kExact>;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float4& dy = rows.dy[p][j];
        const F b0[2] = {F::Of(dy.x, true), F::Of(dy.y, true)};
        const F b1[2] = {F::Of(dy.z, true), F::Of(dy.w, true)};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float4& x = rows.x[p][i];
          const F a[4] = {F::Of(x.x, true), F::Of(x.y, true), F::Of(x.z, true), F::Of(x.w, true)};
          Multiply(a, b0, sums[i][2 * j]);
          Multiply(a, b1, sums[i][2 * j + 1]);
        }
        if (with_bias) {
          bias[2 * j] += dy.x + dy.y;
          bias[2 * j + 1] += dy.z + dy.w;
        }
      }
    }
  }

  __device__ void Store(PartialSums& partial) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int v = 0; v < 8; ++v) {
      const int j = v / 4 * 2 + v % 2, c = v % 4 / 2;
      partial.of_weights[warp][v][lane] =
          make_float4(sums[0][j][c], sums[0][j][c + 2], sums[1][j][c], sums[1][j][c + 2]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float sum = bias[j];
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      if (lane % 4 == 0) partial.of_bias[warp][j / 2 * 16 + lane / 2 + j % 2] = sum;
    }
  }
};

template <bool kExact>
__device__ void SumOverRows(const DescendArgs& args, const DescendJob& job, int part, int k0,
                            int n0, PartialSums& partial) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
  const int x_stride = job.x_stride, dy_stride = job.dy_stride;
  // Row t of the first 16 rows, columns 2 g and 2 g + 1 of the tile.
  const float* const x = job.x + (t * (x_stride / 2) + k0 / 2 + g) * 4;
  const float* const dy = job.dy + (t * (dy_stride / 2) + n0 / 2 + g) * 4;
  TileGradient<kExact> gradient;
  const int end = min(args.row_tiles, (part + 1) * args.tiles_of_part);
  const auto load = [&](int tile, RowOperands& rows) {
    rows.Load(x + tile * kTileRows * x_stride, x_stride, dy + tile * kTileRows * dy_stride,
              dy_stride);
  };
#pragma unroll 1
  for (int tile = part * args.tiles_of_part + warp; tile < end; tile += 2 * kDescendWarps) {
    RowOperands first, second;
    load(tile, first);
    const bool has_second = tile + kDescendWarps < end;
    if (has_second) load(tile + kDescendWarps, second);
    gradient.Add(first, k0 == 0);
    if (has_second) gradient.Add(second, k0 == 0);
  }
  gradient.Store(partial);
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_TILE_GRADIENT_CUH_
