// Elementary functions of vectors; for kernels_*.cc only, which define kVectorBytes and Sqrt.
#ifndef TROUPE_LEARNER_FUSED_CPU_VECTOR_MATH_H_
#define TROUPE_LEARNER_FUSED_CPU_VECTOR_MATH_H_

#include <cstdint>

#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {
namespace {

typedef float Vec __attribute__((vector_size(kVectorBytes), may_alias));
typedef int32_t IntVec __attribute__((vector_size(kVectorBytes), may_alias));
typedef uint32_t WordVec __attribute__((vector_size(kVectorBytes), may_alias));
typedef uint64_t LongVec __attribute__((vector_size(kVectorBytes), may_alias));

constexpr int kLanes = kVectorBytes / sizeof(float);

inline Vec Load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void Store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
inline Vec Same(float x) { return x - Vec{}; }
inline Vec Max(Vec x, Vec y) { return x > y ? x : y; }
inline Vec Min(Vec x, Vec y) { return x < y ? x : y; }
inline Vec Clamp(Vec x, float low, float high) { return Min(Max(x, Same(low)), Same(high)); }
inline Vec Abs(Vec x) { return (Vec)((IntVec)x & 0x7fffffff); }

constexpr int64_t RoomOf(int64_t n) { return (n + kRowFloats - 1) / kRowFloats * kRowFloats; }

inline float SumOf(Vec x) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

// e^x = scale (1 + p): scale is a power of two, p = e^r - 1 with |r| <= log(2) / 2.
struct Exponential {
  Vec scale, p;
};

inline Exponential ExponentialOf(Vec x) {
  constexpr float kLog2OfE = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  const Vec limited = Clamp(x, -87.0f, 88.0f);
  const Vec shifted = limited * kLog2OfE + kRounder;
  const Vec n = shifted - kRounder;
  const Vec r = limited - n * kLn2High - n * kLn2Low;
  Vec q = 1.9875691500e-4f * r + 1.3981999507e-3f;
  q = q * r + 8.3334519073e-3f;
  q = q * r + 4.1665795894e-2f;
  q = q * r + 1.6666665459e-1f;
  q = q * r + 5.0000001201e-1f;
  const IntVec exponent = ((IntVec)shifted - 0x4B400000 + 127) << 23;
  return {(Vec)exponent, q * r * r + r};
}

// 0 below -87, e^88 above 88.
inline Vec Exp(Vec x) {
  const Exponential e = ExponentialOf(x);
  return x < -87.0f ? Vec{} : e.scale * e.p + e.scale;
}

inline Vec ExpMinusOne(Vec x) {
  const Exponential e = ExponentialOf(x);
  return e.scale * e.p + (e.scale - 1.0f);
}

// (e^2x - 1) / (e^2x + 1)
inline Vec Tanh(Vec x) {
  const Vec e = ExpMinusOne(2.0f * Clamp(x, -10.0f, 10.0f));
  return e / (e + 2.0f);
}

// Of positive, normal numbers (Cephes' logf).
inline Vec Log(Vec x) {
  constexpr int32_t kRootHalf = 0x3f3504f3;  // sqrt(0.5)
  const IntVec bits = (IntVec)x - kRootHalf;
  const IntVec exponent = bits >> 23;
  const Vec m = (Vec)((bits & 0x7fffff) + kRootHalf) - 1.0f;  // sqrt(0.5) - 1 .. sqrt(2) - 1
  const Vec e = __builtin_convertvector(exponent, Vec);
  Vec q = 7.0376836292e-2f * m - 1.1514610310e-1f;
  q = q * m + 1.1676998740e-1f;
  q = q * m - 1.2420140846e-1f;
  q = q * m + 1.4249322787e-1f;
  q = q * m - 1.6668057665e-1f;
  q = q * m + 2.0000714765e-1f;
  q = q * m - 2.4999993993e-1f;
  q = q * m + 3.3333331174e-1f;
  const Vec square = m * m;
  return q * m * square - 2.12194440e-4f * e - 0.5f * square + m + 0.693359375f * e;
}

inline Vec Elu(Vec x) { return x > 0.0f ? x : ExpMinusOne(Min(x, Vec{})); }

// cos(2 pi u), 0 <= u < 1: sin(pi / 2 - 2 pi |u - 0 or 1|), by its series.
inline Vec CosOfTurns(Vec u) {
  constexpr float kTwoPi = 6.28318530717958648f;
  const Vec turns = 0.25f - Abs(u > 0.5f ? u - 1.0f : u);
  const Vec x = turns * kTwoPi, square = x * x;
  Vec q = 1.6059044e-10f * square - 2.5052108e-8f;
  q = q * square + 2.7557319e-6f;
  q = q * square - 1.9841270e-4f;
  q = q * square + 8.3333333e-3f;
  q = q * square - 1.6666667e-1f;
  return q * square * x + x;
}

}  // namespace
}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_VECTOR_MATH_H_
