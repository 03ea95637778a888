#include "learner/fused/tile_gradient.cuh"

namespace troupe {
namespace {

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

// The parameter at `offset`, of which there is no transposed copy.
template <DescendPart kPart>
__device__ void DescendOne(const DescendJob& job, const AdamSizes& sizes, float gradient,
                           int offset, float tau) {
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

// For each lane, the sum of `n` numbers, `stride` apart from the lane's first one on.
__device__ inline float SumOverTiles(const float* first, int n, int stride,
                                     float (&scratch)[kDescendWarps][kTile]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float sum = 0;
#pragma unroll 4
  for (int i = warp; i < n; i += kDescendWarps) sum += first[i * stride];
  __syncthreads();
  scratch[warp][lane] = sum;
  __syncthreads();
  sum = 0;
#pragma unroll
  for (int w = 0; w < kDescendWarps; ++w) sum += scratch[w][lane];
  return sum;
}

// LayerNorm's gains and biases of kTile outputs, by a block.  Out of line, because networks without
// LayerNorm need none of it.
template <DescendPart kPart>
__device__ __noinline__ void DescendNorm(const DescendArgs& args, const DescendJob& job,
                                         AdamSizes sizes, int n0,
                                         float (&scratch)[kDescendWarps][kTile]) {
  const int n = n0 + static_cast<int>(threadIdx.x) % 32, width = job.layer.padded_n;
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    float sum = 0;
    if (kPart != DescendPart::kStep) {
      sum = SumOverTiles(job.norm_sums + i * width + n, args.row_tiles, 2 * width, scratch);
    }
    const int offset = i == 0 ? job.layer.norm_gain : job.layer.norm_bias;
    if (threadIdx.x < 32 && n < job.layer.n) {
      DescendOne<kPart>(job, sizes, sum, offset + n, args.tau);
    }
  }
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
  if (k0 > 0 || part > 0) return;
  if (warp == 0 && n0 + lane < job.layer.n) {
    DescendOne<kPart>(job, sizes, sum.bias, job.layer.bias + n0 + lane, args.tau);
  }
  if (job.norm_sums != nullptr) DescendNorm<kPart>(args, job, sizes, n0, partial.of_bias);
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
  sum = SumOverWarp(sum);
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
