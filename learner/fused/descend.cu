#include "learner/fused/sac_kernels.h"
#include "learner/fused/tensor_core.cuh"

namespace troupe {
namespace {

constexpr int kDescendThreads = 256, kDescendWarps = kDescendThreads / 32;
constexpr int kTile = 32;  // parameters along k and along n that a block has
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

// Two weights (k, n) and (k + 1, n), which lie one after another.
template <DescendPart kPart>
class TwoWeights {
 public:
  __device__ TwoWeights(const DescendJob& job, int k, int n) : job_(job), k_(k), n_(n) {
    is_there_ = k < job.layer.k && n < job.layer.n;
    if (!is_there_) return;
    offset_ = job.layer.weights + PackedIndex(k, n, job.layer.padded_k);
    if (kPart == DescendPart::kGradient) return;
    value_ = *At(job.vector.values);
    m_ = *At(job.vector.m);
    v_ = *At(job.vector.v);
    if (job.target != nullptr) target_ = *At(job.target);
  }

  __device__ void Descend(const AdamSizes& sizes, float first, float second, float tau) {
    if (!is_there_) return;
    if (kPart == DescendPart::kGradient) {
      *At(job_.vector.gradient) = make_float2(first, k_ + 1 < job_.layer.k ? second : 0);
      return;
    }
    if (kPart == DescendPart::kStep) {
      const float2 both = *At(job_.vector.gradient);
      first = both.x;
      second = both.y;
    }
    Step(sizes, first, tau, 0, value_.x, m_.x, v_.x, target_.x);
    // Behind the last input x may hold something else.
    if (k_ + 1 < job_.layer.k) Step(sizes, second, tau, 1, value_.y, m_.y, v_.y, target_.y);
    *At(job_.vector.values) = value_;
    *At(job_.vector.m) = m_;
    *At(job_.vector.v) = v_;
    if (job_.target != nullptr) *At(job_.target) = target_;
  }

 private:
  __device__ float2* At(float* vector) const { return reinterpret_cast<float2*>(vector + offset_); }

  __device__ void Step(const AdamSizes& sizes, float gradient, float tau, int u, float& value,
                       float& m, float& v, float& target) const {
    value = AdamStep(sizes, gradient, value, m, v);
    target += tau * (value - target);
    job_.vector
        .transposed[job_.layer.transposed + PackedIndex(n_, k_ + u, job_.layer.transposed_n)] =
        value;
  }

  const DescendJob& job_;
  const int k_, n_;
  bool is_there_;
  int offset_ = 0;
  float2 value_, m_, v_, target_ = {0, 0};
};

template <DescendPart kPart>
__device__ void DescendBias(const DescendJob& job, const AdamSizes& sizes, float gradient, int n,
                            float tau) {
  const int offset = job.layer.bias + n;
  if (kPart == DescendPart::kGradient) {
    job.vector.gradient[offset] = gradient;
    return;
  }
  if (kPart == DescendPart::kStep) gradient = job.vector.gradient[offset];
  const float value = AdamStep(sizes, gradient, job.vector.values[offset], job.vector.m[offset],
                               job.vector.v[offset]);
  job.vector.values[offset] = value;
  if (job.target != nullptr) job.target[offset] += tau * (value - job.target[offset]);
}

__device__ inline void AddTo(float4& sum, const float4& part) {
  sum.x += part.x;
  sum.y += part.y;
  sum.z += part.z;
  sum.w += part.w;
}

// What a thread has of a tile's gradient: that of four weights and, in the first warp, of a bias.
struct TileSums {
  float4 weights = {0, 0, 0, 0};
  float bias = 0;
};

// A cluster of args.parts blocks has a tile; each sums over its part of the rows, then has the
// cluster's sums for its part of the tile (`is_mine`).
template <bool kExact>
__device__ TileSums SumOfTile(const DescendArgs& args, const DescendJob& job, int part, int k0,
                              int n0, bool is_mine, PartialSums& partial) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  SumOverRows<kExact>(args, job, part, k0, n0, partial);
  __syncthreads();
  TileSums sum;
#pragma unroll
  for (int w = 0; w < kDescendWarps; ++w) AddTo(sum.weights, partial.of_weights[w][warp][lane]);
  if (warp == 0) {
#pragma unroll
    for (int w = 0; w < kDescendWarps; ++w) sum.bias += partial.of_bias[w][lane];
  }
  if (args.parts == 1) return sum;
  __syncthreads();
  partial.of_weights[0][warp][lane] = sum.weights;
  if (warp == 0) partial.of_bias[0][lane] = sum.bias;
  AwaitCluster();
  sum = {};
#pragma unroll 1
  for (int r = 0; r < args.parts; ++r) {
    if (is_mine) AddTo(sum.weights, LoadFrom(r, &partial.of_weights[0][warp][lane]));
    if (threadIdx.x < kTile && part == 0) {
      const float4 biases =
          LoadFrom(r, reinterpret_cast<const float4*>(partial.of_bias[0]) + lane / 4);
      sum.bias += lane % 4 == 0   ? biases.x
                  : lane % 4 == 1 ? biases.y
                  : lane % 4 == 2 ? biases.z
                                  : biases.w;
    }
  }
  AwaitCluster();  // nobody leaves while others read
  return sum;
}

template <bool kExact, DescendPart kPart>
__device__ void DescendTile(const DescendArgs& args, const DescendJob& job, PartialSums& partial) {
  const int part = static_cast<int>(blockIdx.x) & (args.parts - 1);
  const int tile = (static_cast<int>(blockIdx.x) >> Log2(args.parts)) - job.first_tile;
  const int k0 = tile % job.tiles_k * kTile, n0 = tile / job.tiles_k * kTile;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const bool is_mine = warp * args.parts >> 3 == part;  // of the 8 columns of each thread's part
  const int k = is_mine ? k0 + 2 * g : job.layer.k;
  const int n = n0 + 16 * (warp / 4) + 4 * t + warp % 4;
  TwoWeights<kPart> low(job, k, n), high(job, k + 16, n);
  if (args.overlaps) AwaitPreviousKernel();
  const int64_t steps = *args.steps;
  TileSums sum;
  if (kPart != DescendPart::kStep) {
    sum = SumOfTile<kExact>(args, job, part, k0, n0, is_mine, partial);
  }
  const AdamSizes sizes = AdamSizesOf(args.learning_rate, steps);
  low.Descend(sizes, sum.weights.x, sum.weights.y, args.tau);
  high.Descend(sizes, sum.weights.z, sum.weights.w, args.tau);
  if (k0 == 0 && part == 0 && warp == 0 && n0 + lane < job.layer.n) {
    DescendBias<kPart>(job, sizes, sum.bias, n0 + lane, args.tau);
  }
}

__device__ const DescendJob& JobOfBlock(const DescendArgs& args) {
  const int tile = static_cast<int>(blockIdx.x) >> Log2(args.parts);
  int j = 0;
#pragma unroll 1
  while (j + 1 < args.num_jobs && tile >= args.jobs[j + 1].first_tile) ++j;
  return args.jobs[j];
}

// The sum of `n` numbers, for all threads; `scratch`: [kDescendWarps], in shared memory.
__device__ __noinline__ float SumOf(const float* numbers, int n, float* scratch) {
  float sum = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += kDescendThreads) sum += numbers[i];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffff, sum, distance);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < kDescendWarps; ++w) total += scratch[w];
  return total;
}

// The sums of the two numbers that every row has, over the rows here or of all ranks.
template <bool kCritics, DescendPart kPart>
__device__ float2 SumsOfRows(const DescendArgs& args, float* scratch) {
  if (kPart == DescendPart::kStep) return make_float2(args.sums[0], args.sums[1]);
  const float first = SumOf(kCritics ? args.squared_error : args.log_pi, args.batch_size, scratch);
  const float second = SumOf(kCritics ? args.q_sum : args.actor_loss, args.batch_size, scratch);
  return make_float2(first, second);
}

__device__ void SummarizeCritics(const DescendArgs& args, float2 sums) {
  const float batch = static_cast<float>(args.whole_batch);
  args.statistics->q_loss = sums.x / batch;
  args.statistics->q_mean = sums.y / (2 * batch);
  ++args.counters->updates;  // nobody else reads it in this kernel
}

// Also the temperature: dJ/d(log alpha) = -(mean log pi + target entropy).
__device__ void SummarizeActor(const DescendArgs& args, float2 sums) {
  const float batch = static_cast<float>(args.whole_batch), log_pi = sums.x / batch;
  if (args.automatic_temperature) {
    const AdamSizes sizes = AdamSizesOf(args.alpha_learning_rate, args.counters->alpha_steps);
    float* const a = args.log_alpha;
    a[0] = AdamStep(sizes, -(log_pi + args.target_entropy), a[0], a[1], a[2]);
  }
  args.statistics->actor_loss = sums.y / batch;
  args.statistics->entropy = -log_pi;
  args.statistics->alpha = expf(args.log_alpha[0]);
}

// By one more block.
template <bool kCritics, DescendPart kPart>
__device__ void Summarize(const DescendArgs& args, float* scratch) {
  const float2 sums = SumsOfRows<kCritics, kPart>(args, scratch);
  if (threadIdx.x > 0) return;
  if (kPart == DescendPart::kGradient) {
    args.sums[0] = sums.x;
    args.sums[1] = sums.y;
  } else if (kCritics) {
    SummarizeCritics(args, sums);
  } else {
    SummarizeActor(args, sums);
  }
}

template <bool kExact, bool kCritics, DescendPart kPart>
__global__ void __launch_bounds__(kDescendThreads, 2)
    Descend(const __grid_constant__ DescendArgs args) {
  PartialSums& partial = *BlockMemory<PartialSums>();
  // The kernel before this one does not touch the parameters that descend here.
  const bool has_tile = static_cast<int>(blockIdx.x) < args.num_tiles * args.parts;
  if (!args.overlaps || !has_tile) AwaitPreviousKernel();
  if (has_tile) {
    DescendTile<kExact, kPart>(args, JobOfBlock(args), partial);
  } else if (static_cast<int>(blockIdx.x) > args.num_tiles * args.parts) {
    return;  // there are whole clusters only
  } else {
    Summarize<kCritics, kPart>(args, partial.of_bias[0]);
  }
}

__global__ void SetView(TransitionView* view, TransitionView value) { *view = value; }

template <bool kCritics, DescendPart kPart>
cudaError_t LaunchDescend(const DescendArgs& args, const LaunchOptions& options,
                          cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[2];
  config.gridDim = dim3((args.num_tiles + 1) * args.parts);
  config.blockDim = dim3(kDescendThreads);
  config.dynamicSmemBytes = sizeof(PartialSums);
  config.stream = stream;
  config.attrs = attributes;
  if (args.parts > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(args.parts), 1, 1};
  }
  if (options.overlap) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(
      &config, options.exact ? Descend<true, kCritics, kPart> : Descend<false, kCritics, kPart>,
      args);
}

template <bool kCritics>
cudaError_t LaunchPart(const DescendArgs& args, DescendPart part, const LaunchOptions& options,
                       cudaStream_t stream) {
  switch (part) {
    case DescendPart::kGradient:
      return LaunchDescend<kCritics, DescendPart::kGradient>(args, options, stream);
    case DescendPart::kStep:
      return LaunchDescend<kCritics, DescendPart::kStep>(args, options, stream);
    default:
      return LaunchDescend<kCritics, DescendPart::kBoth>(args, options, stream);
  }
}

}  // namespace

cudaError_t LaunchDescendCritics(const DescendArgs& args, DescendPart part,
                                 const LaunchOptions& options, cudaStream_t stream) {
  return LaunchPart<true>(args, part, options, stream);
}

cudaError_t LaunchDescendActor(const DescendArgs& args, DescendPart part,
                               const LaunchOptions& options, cudaStream_t stream) {
  return LaunchPart<false>(args, part, options, stream);
}

cudaError_t LaunchSetView(TransitionView* view, const TransitionView& value, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = config.blockDim = dim3(1);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SetView, view, value);
}

cudaError_t PrepareCriticRows(int bytes);
cudaError_t PrepareActorRows(int bytes);

cudaError_t PrepareKernels(int critic_rows_bytes, int actor_rows_bytes) {
  const cudaError_t error = PrepareCriticRows(critic_rows_bytes);
  return error != cudaSuccess ? error : PrepareActorRows(actor_rows_bytes);
}

}  // namespace troupe
