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
// Blocks of weights along k that a warp has in its registers, or on their way there.
inline constexpr int kChunk = kPadding / kBlockK;

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

// Out of line, because networks of rectifiers need none of it.
__device__ __noinline__ static float ActivateOther(HiddenUnit unit, float x) {
  return Activate(unit, x);
}

template <bool kExact>
__device__ inline float ActivateRounded(HiddenUnit unit, float x) {
  return Rounded<kExact>(unit == HiddenUnit::kRelu ? fmaxf(x, 0) : ActivateOther(unit, x));
}

// The tiles of a step that a warp has, one after another.
template <bool kExact>
class StepProducts {
 public:
  __device__ StepProducts(const RowCluster& cluster, const ProductJob* jobs, const RowsStep& step,
                          const ArrivalBarrier& barrier)
      : cluster_(cluster), jobs_(jobs + step.first_job), step_(step), barrier_(barrier) {
    task_ = static_cast<int>(threadIdx.x) / 32 - kRowWarps;
    NextTile();
    if (left_ == 0) return;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) LoadBlock(i);
  }

  // REQUIRES: the inputs are there.
  __device__ void Run() {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    while (left_ > 0) {
      const ProductJob job = jobs_[job_];
      const int column = tile_ * kTileColumns + 2 * t;
      const int place = cluster_.first_row * job.width + (g * (job.width / 2) + column / 2) * 4;
      float2 bias[2] = {};
      float4 mask[2] = {};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (job.bias != nullptr) bias[j] = *Global<float2>(job.bias + column + j * kBlockN);
        if (job.mask != nullptr) mask[j] = *Global<float4>(job.mask + place + j * 2 * kBlockN);
      }
      float sums[2][4] = {};
      Multiply(Shared(job.input) + g * job.input_stride + 8 * t, sums);
      const int shared_place = g * job.output_stride + 2 * (column - job.output_shift);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        Finish(job, shared_place + j * 2 * kBlockN, column + j * kBlockN, place + j * 2 * kBlockN,
               mask[j],
               make_float4(sums[j][0] + bias[j].x, sums[j][1] + bias[j].y, sums[j][2] + bias[j].x,
                           sums[j][3] + bias[j].y));
      }
    }
  }

 private:
  // The same place, said to be in global memory.
  template <typename T>
  __device__ static const T* Global(const float* place) {
    const T* const typed = reinterpret_cast<const T*>(place);
    __builtin_assume(__isGlobal(typed));
    return typed;
  }

  // Goes to the next tile's first chunk; left_ is 0 after the last one.
  __device__ void NextTile() {
    left_ = 0;
    for (;;) {
      task_ += kRowWarps;
      if (task_ >= step_.num_tasks) return;
      job_ = (task_ * step_.inverse_tiles) >> 16;
      tile_ = task_ - job_ * step_.tiles;
      if (tile_ < jobs_[job_].tiles) break;
    }
    const ProductJob& job = jobs_[job_];
    tile_ += job.first_tile + (job.is_shared != 0 ? cluster_.rank * job.tiles : 0);
    left_ = job.blocks / kChunk;
    next_second_ = job.row_blocks * 32;
    next_ = reinterpret_cast<const float4*>(job.weights) + 2 * tile_ * next_second_ +
            job.first_block * 32 + threadIdx.x % 32;
  }

  __device__ void NextChunk() {
    if (--left_ == 0) return NextTile();
    next_ += kChunk * 32;
  }

  // Of both eight columns.
  __device__ void LoadBlock(int i) {
    weights_[0][i] = __ldg(next_ + i * 32);
    weights_[1][i] = __ldg(next_ + next_second_ + i * 32);
  }

  // Multiplies the inputs by a tile; weights_ has the beginning of the one after it then.
  __device__ void Multiply(const float* inputs, float (&sums)[2][4]) {
    bool ends;
    do {
      ends = left_ == 1;
      NextChunk();
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        MultiplyBlock(inputs + i * 2 * kBlockK, weights_[0][i], weights_[1][i], sums);
        if (left_ > 0) LoadBlock(i);
      }
      inputs += 2 * kPadding;
    } while (!ends);
  }

  // Inputs 4 t ... 4 t + 3 of a block are this thread's for both operands; the order of a sum's
  // terms is free.
  __device__ static void MultiplyBlock(const float* inputs, const float4& w0, const float4& w1,
                                       float (&sums)[2][4]) {
    const float4 first = *reinterpret_cast<const float4*>(inputs);
    const float4 second = *reinterpret_cast<const float4*>(inputs + 4);
    MultiplyHalf(first, w0.x, w0.y, w1.x, w1.y, sums);
    MultiplyHalf(second, w0.z, w0.w, w1.z, w1.w, sums);
  }
  __device__ static void MultiplyHalf(const float4& x, float w00, float w01, float w10, float w11,
                                      float (&sums)[2][4]) {
    using F = Factor<kExact>;
    const F a[4] = {F::Of(x.x, true), F::Of(x.y, true), F::Of(x.z, true), F::Of(x.w, true)};
    const F b0[2] = {F::Of(w00, false), F::Of(w01, false)};
    const F b1[2] = {F::Of(w10, false), F::Of(w11, false)};
    troupe::Multiply(a, b0, sums[0]);
    troupe::Multiply(a, b1, sums[1]);
  }

  // Outputs (g, column), (g, column + 1), then those of row g + 8.
  __device__ void Finish(const ProductJob& job, int shared_place, int column, int place,
                         const float4& mask, float4 v) const {
    if (job.combine == Combine::kActivate) {
      v.x = ActivateRounded<kExact>(job.unit, v.x);
      v.y = ActivateRounded<kExact>(job.unit, v.y);
      v.z = ActivateRounded<kExact>(job.unit, v.z);
      v.w = ActivateRounded<kExact>(job.unit, v.w);
    } else if (job.combine == Combine::kMultiplyBySlope) {
      v.x = Rounded<kExact>(v.x * ActivationSlope(job.unit, mask.x));
      v.y = Rounded<kExact>(v.y * ActivationSlope(job.unit, mask.y));
      v.z = Rounded<kExact>(v.z * ActivationSlope(job.unit, mask.z));
      v.w = Rounded<kExact>(v.w * ActivationSlope(job.unit, mask.w));
    }
    const float4 beside = make_float4(v.x, v.z, v.y, v.w);  // row g beside row g + 8
    if (job.output >= 0) {
      float* const output = Shared(job.output) + shared_place;
      if (step_.everywhere != 0) {
        StoreEverywhere(cluster_, output, beside, barrier_);
      } else {
        *reinterpret_cast<float4*>(output) = beside;
      }
    }
    if (job.kept == nullptr) return;
    if (job.is_shared == 0 && !cluster_.Keeps(column, job.width)) return;
    float4* const kept = reinterpret_cast<float4*>(job.kept + place);
    __builtin_assume(__isGlobal(kept));
    *kept = job.combine == Combine::kMultiplyBySlope ? beside : v;
  }

  const RowCluster& cluster_;
  const ProductJob* const jobs_;
  const RowsStep& step_;
  const ArrivalBarrier& barrier_;
  int task_, job_ = 0, tile_ = 0;  // of what is loaded
  int left_ = 0;                   // chunks of the tile, with the one in weights_
  int next_second_ = 0;            // from the first eight columns' weights to the second's
  const float4* next_ = nullptr;
  float4 weights_[2][kChunk];
};

__device__ inline float SumOverWarp(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(0xffffffff, x, distance);
  }
  return x;
}

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
    cluster.AwaitAll();
  }
}

// Runs the program; prepare(Before) does what is due before a step.
template <bool kExact, typename Prepare>
__device__ inline void RunProgram(const RowsArgs& args, const RowCluster& cluster,
                                  Prepare prepare) {
  const RowsStep* const steps = reinterpret_cast<const RowsStep*>(Shared(args.layout.steps));
  const ProductJob* const jobs = reinterpret_cast<const ProductJob*>(Shared(args.layout.jobs));
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
    prepare(step.before);
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

#endif  // TROUPE_LEARNER_FUSED_ROW_CLUSTER_CUH_
