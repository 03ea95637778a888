#ifndef TROUPE_LEARNER_FUSED_TENSOR_CORE_CUH_
#define TROUPE_LEARNER_FUSED_TENSOR_CORE_CUH_

#include "learner/fused/gpu_instructions.cuh"

namespace troupe {

// tf32: float32 with 10 bits of mantissa, what the tensor cores multiply; they leave the other 13
// out.  To the nearest; a sum does it for every finite number, where `cvt` takes three
// instructions.
__device__ inline uint32_t ToTf32(float x) { return __float_as_uint(x) + 0x1000; }

// What products are made of: kExact splits each factor into two tf32 numbers.
template <bool kExact>
struct Factor {
  uint32_t high, low;
  // `rounded`: the number is a tf32 one already unless kExact.
  __device__ static Factor Of(float x, bool rounded) {
    Factor factor;
    factor.high = kExact || !rounded ? ToTf32(x) : __float_as_uint(x);
    factor.low = 0;
    if (kExact) {
      factor.high &= 0xffffe000;
      factor.low = ToTf32(x - __uint_as_float(factor.high));
    }
    return factor;
  }
};

// A number as it is stored for later products.
template <bool kExact>
__device__ inline float Rounded(float x) {
  return kExact ? x : __uint_as_float(ToTf32(x) & 0xffffe000);
}

// sum[16, 8] += a[16, 8] b[8, 8], which the threads of a warp have as in MultiplyTf32().
template <bool kExact>
__device__ inline void Multiply(const Factor<kExact> (&a)[4], const Factor<kExact> (&b)[2],
                                float (&sum)[4]) {
  const uint32_t a_high[4] = {a[0].high, a[1].high, a[2].high, a[3].high};
  const uint32_t b_high[2] = {b[0].high, b[1].high};
  if constexpr (kExact) {
    const uint32_t a_low[4] = {a[0].low, a[1].low, a[2].low, a[3].low};
    const uint32_t b_low[2] = {b[0].low, b[1].low};
    MultiplyTf32(a_low, b_high, sum);
    MultiplyTf32(a_high, b_low, sum);
  }
  MultiplyTf32(a_high, b_high, sum);
}

__device__ inline float SumOverWarp(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(0xffffffff, x, distance);
  }
  return x;
}

// log2 of a power of two.
__device__ inline int Log2(int power) { return __ffs(power) - 1; }

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_TENSOR_CORE_CUH_
