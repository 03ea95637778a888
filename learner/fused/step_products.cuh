#ifndef TROUPE_LEARNER_FUSED_STEP_PRODUCTS_CUH_
#define TROUPE_LEARNER_FUSED_STEP_PRODUCTS_CUH_

#include "learner/fused/row_cluster.cuh"

namespace troupe {

// Blocks of weights along k that a warp has in its registers, or on their way there.
inline constexpr int kChunk = kPadding / kBlockK;

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

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_STEP_PRODUCTS_CUH_
