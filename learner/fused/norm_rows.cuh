#ifndef TROUPE_LEARNER_FUSED_NORM_ROWS_CUH_
#define TROUPE_LEARNER_FUSED_NORM_ROWS_CUH_

#include "learner/fused/layer_norm.h"
#include "learner/fused/step_products.cuh"

namespace troupe {

// NormJobs.  A warp takes two rows, g and g + 8, and each of its threads two neighbouring columns
// of every 64: (g, n) (g + 8, n) (g, n + 1) (g + 8, n + 1) are 16 bytes in shared memory, and in
// the order of gradients.

// Calls f(n, numbers) for this thread's columns n and n + 1 of the two rows.
template <typename Function>
__device__ inline void ForColumnsOfRows(const NormJob& job, float* rows, const Function& f) {
#pragma unroll 2
  for (int n = 2 * (static_cast<int>(threadIdx.x) % 32); n < job.width; n += 64) {
    f(n, *reinterpret_cast<float4*>(rows + 2 * n));
  }
}

// Numbers of columns n and n + 1 without what is in the padding behind column n_end - 1.
__device__ inline float4 Within(float4 x, int n, int n_end) {
  if (n >= n_end) x.x = x.y = 0;
  if (n + 1 >= n_end) x.z = x.w = 0;
  return x;
}

// What the threads of the warp have of two rows, added up and divided by the number of columns.
__device__ inline float2 MeanOfRows(const NormJob& job, float2 sums) {
  const float n = static_cast<float>(job.n);
  return make_float2(SumOverWarp(sums.x) / n, SumOverWarp(sums.y) / n);
}

// Where the two rows begin in arrays of all rows.
__device__ inline int PlaceOfRows(const NormJob& job, const RowCluster& cluster, int g) {
  return cluster.first_row * job.width + g * 2 * job.width;
}

template <bool kExact>
__device__ void NormalizeRows(const NormJob& job, const RowCluster& cluster, int g) {
  float* const rows = Shared(job.rows) + g * job.stride;
  float2 sums = make_float2(0, 0), squares = sums;
  ForColumnsOfRows(job, rows, [&](int, const float4& z) {
    sums.x += z.x + z.z;
    sums.y += z.y + z.w;
  });
  const float2 mean = MeanOfRows(job, sums);
  // Differences from the mean are exact where squares would cancel out.
  const auto centered = [&](int n, const float4& z) {
    return Within(make_float4(z.x - mean.x, z.y - mean.y, z.z - mean.x, z.w - mean.y), n, job.n);
  };
  ForColumnsOfRows(job, rows, [&](int n, const float4& z) {
    const float4 x = centered(n, z);
    squares.x += x.x * x.x + x.z * x.z;
    squares.y += x.y * x.y + x.w * x.w;
  });
  const float2 variance = MeanOfRows(job, squares);
  const float2 scale =
      make_float2(1 / sqrtf(variance.x + kNormEpsilon), 1 / sqrtf(variance.y + kNormEpsilon));
  const int place = PlaceOfRows(job, cluster, g);
  ForColumnsOfRows(job, rows, [&](int n, float4& h) {
    float4 x = centered(n, h);
    x = make_float4(x.x * scale.x, x.y * scale.y, x.z * scale.x, x.w * scale.y);
    if (job.normalized != nullptr) *reinterpret_cast<float4*>(job.normalized + place + 2 * n) = x;
    const float2 gain = *reinterpret_cast<const float2*>(job.gain + n);
    const float2 bias = *reinterpret_cast<const float2*>(job.bias + n);
    h = make_float4(ActivateRounded<kExact>(job.unit, gain.x * x.x + bias.x),
                    ActivateRounded<kExact>(job.unit, gain.x * x.y + bias.x),
                    ActivateRounded<kExact>(job.unit, gain.y * x.z + bias.y),
                    ActivateRounded<kExact>(job.unit, gain.y * x.w + bias.y));
    if (job.kept == nullptr || !cluster.Keeps(n, job.width)) return;
    *reinterpret_cast<float4*>(job.kept + place + 2 * n) = make_float4(h.x, h.z, h.y, h.w);
  });
  if (job.scale == nullptr || threadIdx.x % 32 > 0) return;
  job.scale[cluster.first_row + g] = scale.x;
  job.scale[cluster.first_row + g + 8] = scale.y;
}

template <bool kExact>
__device__ void NormalizeRowsBack(const NormJob& job, const RowCluster& cluster, int g) {
  float* const rows = Shared(job.rows) + g * job.stride;
  const int place = PlaceOfRows(job, cluster, g);
  const auto normalized = [&](int n) {
    return *reinterpret_cast<const float4*>(job.normalized + place + 2 * n);
  };
  const auto times_gain = [&](int n, const float4& d) {
    const float2 gain = *reinterpret_cast<const float2*>(job.gain + n);
    return make_float4(gain.x * d.x, gain.x * d.y, gain.y * d.z, gain.y * d.w);
  };
  float2 sums = make_float2(0, 0), sums_x = sums;
  ForColumnsOfRows(job, rows, [&](int n, const float4& d) {
    const float4 x = normalized(n), gd = times_gain(n, d);
    sums.x += gd.x + gd.z;
    sums.y += gd.y + gd.w;
    sums_x.x += gd.x * x.x + gd.z * x.z;
    sums_x.y += gd.y * x.y + gd.w * x.w;
  });
  const float2 mean = MeanOfRows(job, sums), mean_x = MeanOfRows(job, sums_x);
  const float low = job.scale[cluster.first_row + g], high = job.scale[cluster.first_row + g + 8];
  ForColumnsOfRows(job, rows, [&](int n, float4& d) {
    const float4 x = normalized(n), gd = times_gain(n, d);
    d = Within(make_float4(Rounded<kExact>(low * (gd.x - mean.x - x.x * mean_x.x)),
                           Rounded<kExact>(high * (gd.y - mean.y - x.y * mean_x.y)),
                           Rounded<kExact>(low * (gd.z - mean.x - x.z * mean_x.x)),
                           Rounded<kExact>(high * (gd.w - mean.y - x.w * mean_x.y))),
               n, job.n);
    if (job.kept == nullptr || !cluster.Keeps(n, job.width)) return;
    *reinterpret_cast<float4*>(job.kept + place + 2 * n) = d;
  });
}

// The gradients by gain and bias: sums over the rows of d x and of d.  Each block of the cluster
// has a part of the columns, and a thread a column of it.
__device__ inline void SumNormGradients(const NormJob& job, const RowCluster& cluster) {
  const int part = job.width >> Log2(cluster.size);
  const float* const rows = Shared(job.rows);
#pragma unroll 1
  for (int i = threadIdx.x; i < part; i += kRowThreads) {
    const int n = cluster.rank * part + i;
    float of_gain = 0, of_bias = 0;
#pragma unroll
    for (int g = 0; g < kTileRows / 2; ++g) {
      const float2 d = *reinterpret_cast<const float2*>(rows + g * job.stride + 2 * n);
      const float2 x =
          *reinterpret_cast<const float2*>(job.normalized + PlaceOfRows(job, cluster, g) + 2 * n);
      of_gain += d.x * x.x + d.y * x.y;
      of_bias += d.x + d.y;
    }
    float* const sums = job.sums + cluster.first_row / kTileRows * 2 * job.width + n;
    sums[0] = of_gain;
    sums[job.width] = of_bias;
  }
}

// Calls f(job, g) for this warp's rows of `num_jobs` jobs, and waits for the block's other warps.
template <typename Function>
__device__ inline void ForRowsOfWarp(const NormJob* jobs, int num_jobs, const Function& f) {
  constexpr int kPairs = kTileRows / 2;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) / 32; i < num_jobs * kPairs; i += kRowWarps) {
    f(jobs[i / kPairs], i % kPairs);
  }
  __syncthreads();
}

// Out of line, because networks without LayerNorm need none of it; what they are given by value
// stays in registers.
template <bool kExact>
__device__ __noinline__ void Normalize(const NormJob* jobs, int num_jobs, RowCluster cluster) {
  ForRowsOfWarp(jobs, num_jobs,
                [&](const NormJob& job, int g) { NormalizeRows<kExact>(job, cluster, g); });
}

template <bool kExact>
__device__ __noinline__ void NormalizeBack(const NormJob* jobs, int num_jobs, RowCluster cluster) {
#pragma unroll 1
  for (int j = 0; j < num_jobs; ++j) {
    if (jobs[j].sums != nullptr) SumNormGradients(jobs[j], cluster);
  }
  __syncthreads();
  ForRowsOfWarp(jobs, num_jobs,
                [&](const NormJob& job, int g) { NormalizeRowsBack<kExact>(job, cluster, g); });
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_NORM_ROWS_CUH_
