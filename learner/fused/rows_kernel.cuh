#ifndef TROUPE_LEARNER_FUSED_ROWS_KERNEL_CUH_
#define TROUPE_LEARNER_FUSED_ROWS_KERNEL_CUH_

#include "learner/fused/norm_rows.cuh"

namespace troupe {

// What both kernels over rows are made of.

// The sum of what `parts` arrays of rows, one after another, have at the same place.
__device__ inline float SumOfParts(const float* place, int parts, int stride) {
  float sum = 0;
  for (int p = 0; p < parts; ++p) sum += place[p * (kTileRows / 2) * stride];
  return sum;
}

// Where the first output's weights of a packed layer lie.
__device__ inline int FirstOutputIndex(int k) { return k / kBlockK * kBlockFloats + k % kBlockK; }

// Copies the program into shared memory.
__device__ inline void LoadProgram(const RowsArgs& args) {
  const auto copy = [](const void* from, int to, int bytes) {
#pragma unroll 1
    for (int i = threadIdx.x; i < bytes / 16; i += kRowThreads) {
      reinterpret_cast<uint4*>(Shared(to))[i] = static_cast<const uint4*>(from)[i];
    }
  };
  copy(args.program->steps, args.layout.steps, args.num_steps * sizeof(RowsStep));
  copy(args.program->jobs, args.layout.jobs, args.num_jobs * sizeof(ProductJob));
  copy(args.program->norms, args.layout.norms, args.num_norms * sizeof(NormJob));
}

// Copies the last weights of the value functions.
__device__ inline void LoadValueHeads(const RowsArgs& args, int num_values) {
  const int width = args.layout.value_width;
#pragma unroll 1
  for (int i = 0; i < num_values; ++i) {
#pragma unroll 1
    for (int k = threadIdx.x; k < width; k += kRowThreads) {
      Shared(args.layout.value_head)[i * width + k] = args.value_heads[i][FirstOutputIndex(k)];
    }
  }
}

// values[i][row] of the two value functions from `first` on, whose last hidden layers are at
// `hidden`; a warp for two rows of one.
__device__ inline void ValuesOfRows(const RowsArgs& args, int first, int hidden) {
  const RowsLayout& layout = args.layout;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = threadIdx.x % 32;
  const int i = first + warp / 8, g = warp % 8;
  const float* const weights = Shared(layout.value_head) + i * layout.value_width;
  const float* const h = Shared(hidden) + (warp * layout.hidden_stride);
  float low = 0, high = 0;
#pragma unroll 4
  for (int k = lane; k < layout.value_width; k += 32) {
    const float2 both = *reinterpret_cast<const float2*>(h + 2 * k);
    low += both.x * weights[k];
    high += both.y * weights[k];
  }
  low = SumOverWarp(low);
  high = SumOverWarp(high);
  if (lane > 0) return;
  float* const values = Shared(layout.values) + i * kTileRows + g;
  values[0] = low + *args.value_biases[i];
  values[8] = high + *args.value_biases[i];
}

// From the values' gradients to those of both critics' last hidden layers, by every block; each
// keeps its part in `kept`, [2, padded_batch, width], unless that is null.
template <bool kExact>
__device__ inline void GradientsOfLastHidden(const RowsArgs& args, const RowCluster& cluster,
                                             int first_value, float* kept) {
  const RowsLayout& layout = args.layout;
  const int warp = static_cast<int>(threadIdx.x) / 32, j = warp / 8, g = warp % 8;
  const int width = layout.value_width;
  const float* const q_gradient = Shared(layout.value_gradient) + j * kTileRows + g;
  const float low = q_gradient[0], high = q_gradient[8];
  const float* const h = Shared(layout.last_hidden) + warp * layout.hidden_stride;
  float* const d = Shared(layout.last_gradient) + warp * layout.hidden_stride;
  const float* const weights = Shared(layout.value_head) + (first_value + j) * width;
#pragma unroll 2
  for (int n = threadIdx.x % 32; n < width; n += 32) {
    const float2 both = *reinterpret_cast<const float2*>(h + 2 * n);
    const float2 gradients =
        make_float2(Rounded<kExact>(low * weights[n] * ActivationSlope(args.critic_unit, both.x)),
                    Rounded<kExact>(high * weights[n] * ActivationSlope(args.critic_unit, both.y)));
    *reinterpret_cast<float2*>(d + 2 * n) = gradients;
    if (kept != nullptr && cluster.Keeps(n, width)) {
      const int row = j * args.padded_batch + cluster.first_row + g;
      *reinterpret_cast<float2*>(kept + GradientPlace(row, n, width)) = gradients;
    }
  }
}

// What every kernel over rows begins with.  Everybody's memory is ready for the others after it.
__device__ inline void Begin(const RowsArgs& args, const RowCluster& cluster) {
  LoadProgram(args);
  if (cluster.size > 1) {
    ArrivalBarrier* const barriers =
        reinterpret_cast<ArrivalBarrier*>(Shared(args.layout.barriers));
    const int s = threadIdx.x;
    if (s < args.num_steps && args.program->steps[s].everywhere != 0) {
      barriers[s].Expect(args.program->steps[s].bytes);
    }
    AwaitClusterWithBarriers();
  }
}

// Runs the program; prepare(Before) does what is due before a step.
template <bool kExact, typename Prepare>
__device__ inline void RunProgram(const RowsArgs& args, const RowCluster& cluster,
                                  Prepare prepare) {
  const RowsStep* const steps = reinterpret_cast<const RowsStep*>(Shared(args.layout.steps));
  const ProductJob* const jobs = reinterpret_cast<const ProductJob*>(Shared(args.layout.jobs));
  const NormJob* const norms = reinterpret_cast<const NormJob*>(Shared(args.layout.norms));
  const ArrivalBarrier* const barriers =
      reinterpret_cast<const ArrivalBarrier*>(Shared(args.layout.barriers));
#pragma unroll 1
  for (int s = 0; s < args.num_steps; ++s) {
    const RowsStep step = steps[s];
    StepProducts<kExact> products(cluster, jobs, step, barriers[s]);
    if (s > 0 && cluster.size > 1 && steps[s - 1].everywhere != 0) {
      barriers[s - 1].Wait();
    } else {
      __syncthreads();
    }
    const NormJob* const step_norms = norms + step.first_norm;
    if (step.num_norms > 0) Normalize<kExact>(step_norms, step.num_norms, cluster);
    prepare(step.before);
    if (step.num_norms_back > 0) {
      NormalizeBack<kExact>(step_norms + step.num_norms, step.num_norms_back, cluster);
    }
    products.Run();
  }
}

// How a kernel over rows is launched: clusters of blocks, and perhaps before its predecessor ends.
struct RowsLaunch {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[2];

  RowsLaunch(const RowsArgs& args, const LaunchOptions& options, cudaStream_t stream) {
    config.gridDim = dim3(args.padded_batch / kTileRows * args.cluster_size);
    config.blockDim = dim3(kRowThreads);
    config.dynamicSmemBytes = args.layout.size * sizeof(float);
    config.stream = stream;
    config.attrs = attributes;
    if (args.cluster_size > 1) {
      attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(args.cluster_size), 1,
                                                      1};
    }
    if (options.overlap) {
      attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
  }
  RowsLaunch(const RowsLaunch&) = delete;
  RowsLaunch& operator=(const RowsLaunch&) = delete;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROWS_KERNEL_CUH_
