// Layer normalization; for kernels_*.cc only.
#ifndef TROUPE_LEARNER_FUSED_CPU_VECTOR_NORM_H_
#define TROUPE_LEARNER_FUSED_CPU_VECTOR_NORM_H_

#include <cstdint>

#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {
namespace {

// `x`, which lies at column j of rows of n floats, without what is in the room behind them.
inline Vec InRow(Vec x, int64_t j, int64_t n) {
  if (j + kLanes <= n) return x;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (j + lane >= n) x[lane] = 0;
  }
  return x;
}

template <Unit kUnit>
inline Vec ValueAt(Vec x) {
  if constexpr (kUnit == Unit::kRelu) return Max(x, Vec{});
  if constexpr (kUnit == Unit::kTanh) return Tanh(x);
  if constexpr (kUnit == Unit::kElu) return Elu(x);
  return x;
}

// Of a row, which is read twice more than it would have to be, as differences from the mean are
// exact where squares would cancel out.
template <Unit kUnit>
void NormalizeRow(const NormPass& p, float* h, float* normalized, float* inverse_deviation) {
  Vec sum{}, squares{};
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) sum += InRow(Load(h + j), j, p.n);
  const float count = static_cast<float>(p.n), mean = SumOf(sum) / count;
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) {
    const Vec x = InRow(Load(h + j) - mean, j, p.n);
    squares += x * x;
  }
  const Vec variance = Same(SumOf(squares) / count + kNormEpsilon);
  const float scale = (1.0f / Sqrt(variance))[0];
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) {
    const Vec x = InRow((Load(h + j) - mean) * scale, j, p.n);
    Store(normalized + j, x);
    Store(h + j, ValueAt<kUnit>(x * Load(p.gain + j) + Load(p.bias + j)));
  }
  *inverse_deviation = scale;
}

void Normalize(const NormPass& p) {
  WithUnit(p.unit, [&]<Unit kUnit>() {
    for (int64_t r = 0; r < p.rows; ++r) {
      NormalizeRow<kUnit>(p, p.h + r * p.stride, p.normalized + r * p.stride,
                          p.inverse_deviation + r);
    }
  });
}

// With x the normalized row: dz = scale (g - mean(g) - x mean(g x)), g = gain d.
void NormalizeRowBack(const NormBackPass& p, const float* x, float scale, float* d) {
  Vec sum{}, sum_x{};
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) {
    const Vec g = Load(p.gain + j) * Load(d + j);
    sum += g;
    sum_x += g * Load(x + j);
  }
  const float count = static_cast<float>(p.n);
  const float mean = SumOf(sum) / count, mean_x = SumOf(sum_x) / count;
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) {
    const Vec g = Load(p.gain + j) * Load(d + j);
    Store(d + j, InRow(scale * (g - mean - mean_x * Load(x + j)), j, p.n));
  }
}

void AddToNormGradient(const NormBackPass& p, const float* x, const float* d) {
  for (int64_t j = 0; j < RoomOf(p.n); j += kLanes) {
    const Vec g = Load(d + j);
    Store(p.gain_gradient + j, Load(p.gain_gradient + j) + g * Load(x + j));
    Store(p.bias_gradient + j, Load(p.bias_gradient + j) + g);
  }
}

void NormalizeBack(const NormBackPass& p) {
  if (p.gain_gradient != nullptr) {
    for (int64_t j = 0; j < RoomOf(p.n); ++j) p.gain_gradient[j] = p.bias_gradient[j] = 0;
  }
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t from = p.from_rows == nullptr ? r : p.from_rows[r];
    const float* const x = p.normalized + from * p.stride;
    float* const d = p.d + r * p.stride;
    if (p.gain_gradient != nullptr) AddToNormGradient(p, x, d);
    NormalizeRowBack(p, x, p.inverse_deviation[from], d);
  }
}

}  // namespace
}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_VECTOR_NORM_H_
