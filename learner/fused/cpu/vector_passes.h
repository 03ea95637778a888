// Passes over rows and vectors; for kernels_*.cc only.
#ifndef TROUPE_LEARNER_FUSED_CPU_VECTOR_PASSES_H_
#define TROUPE_LEARNER_FUSED_CPU_VECTOR_PASSES_H_

#include <cstdint>

#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {
namespace {

// Four rows at once, so that additions do not wait for each other.
template <int kRows>
void DotSome(const float* h, int64_t h_stride, int64_t n, const float* w, float bias, float* y) {
  Vec sum[kRows] = {};
  for (int64_t j = 0; j < RoomOf(n); j += kLanes) {
    const Vec x = Load(w + j);
    for (int r = 0; r < kRows; ++r) sum[r] += Load(h + r * h_stride + j) * x;
  }
  for (int r = 0; r < kRows; ++r) y[r] = SumOf(sum[r]) + bias;
}

void DotRows(const float* h, int64_t h_stride, int64_t rows, int64_t n, const float* w, float bias,
             float* y) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) DotSome<4>(h + r * h_stride, h_stride, n, w, bias, y + r);
  for (; r < rows; ++r) DotSome<1>(h + r * h_stride, h_stride, n, w, bias, y + r);
}

void SpreadRows(const float* g, const float* w, const float* h, int64_t h_stride,
                const int32_t* h_rows, int64_t rows, int64_t n, Unit unit, float* d,
                int64_t d_stride) {
  WithUnit(unit, [&]<Unit kUnit>() {
    for (int64_t r = 0; r < rows; ++r) {
      const float* const from = h + (h_rows == nullptr ? r : h_rows[r]) * h_stride;
      for (int64_t j = 0; j < RoomOf(n); j += kLanes) {
        Store(d + r * d_stride + j, g[r] * Load(w + j) * SlopeAt<kUnit>(Load(from + j)));
      }
    }
  });
}

void SumRows(const float* g, const float* d, int64_t d_stride, int64_t rows, int64_t n, bool add,
             float* sums) {
  for (int64_t j = 0; j < RoomOf(n); j += kLanes) {
    Vec even = add ? Load(sums + j) : Vec{}, odd{};
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      const float* const row = d + r * d_stride + j;
      even += (g == nullptr ? 1 : g[r]) * Load(row);
      odd += (g == nullptr ? 1 : g[r + 1]) * Load(row + d_stride);
    }
    if (r < rows) even += (g == nullptr ? 1 : g[r]) * Load(d + r * d_stride + j);
    Store(sums + j, even + odd);
  }
}

// In squares whose rows are cache lines on both sides.
void Transpose(const float* from, int64_t from_stride, int64_t rows, int64_t n, float* to,
               int64_t to_stride) {
  for (int64_t i = 0; i < RoomOf(rows); i += kRowFloats) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t lane = 0; lane < kRowFloats; ++lane) {
        const int64_t row = i + lane;
        to[j * to_stride + row] = row < rows ? from[row * from_stride + j] : 0;
      }
    }
  }
}

// Adds all gradients to the first one.
void AddGradients(const AdamPass& p, int64_t begin, int64_t end) {
  float* const sum = p.gradients[0] + p.gradient_offset;
  for (int64_t g = 1; g < p.num_gradients; ++g) {
    const float* const more = p.gradients[g] + p.gradient_offset;
    for (int64_t i = begin; i < end; i += kLanes) Store(sum + i, Load(sum + i) + Load(more + i));
  }
}

void AdamStep(const AdamPass& p, int64_t begin, int64_t end) {
  constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f;
  const float* const gradient = p.gradients[0] + p.gradient_offset;
  for (int64_t i = begin; i < end; i += kLanes) {
    const Vec g = Load(gradient + i) * p.gradient_scale;
    const Vec m = kBeta1 * Load(p.m + i) + (1 - kBeta1) * g;
    const Vec v = kBeta2 * Load(p.v + i) + (1 - kBeta2) * g * g;
    const Vec value = Load(p.values + i) - p.rate * m / (Sqrt(v) * p.inverse_root + p.epsilon);
    Store(p.m + i, m);
    Store(p.v + i, v);
    Store(p.values + i, value);
    if (p.targets != nullptr) {
      const Vec target = Load(p.targets + i);
      Store(p.targets + i, target + p.tau * (value - target));
    }
  }
}

// n is taken in pieces that stay in the first-level cache between the two passes.
void Adam(const AdamPass& p) {
  constexpr int64_t kPiece = 1024;
  for (int64_t begin = 0; begin < p.n; begin += kPiece) {
    const int64_t end = begin + kPiece < RoomOf(p.n) ? begin + kPiece : RoomOf(p.n);
    AddGradients(p, begin, end);
    AdamStep(p, begin, end);
  }
}

// log |da/du| = 2 (log 2 - u - softplus(-2 u)), which is exact where tanh saturates.
void Squash(const SquashPass& p) {
  constexpr float kConstant = 0.918938533f + 1.386294361f;  // log(2 pi) / 2 + 2 log 2
  for (int64_t i = 0; i < p.n; i += kLanes) {
    const Vec given = Load(p.log_std + i), noise = Load(p.noise + i);
    const Vec log_std = Clamp(given, p.log_std_min, p.log_std_max);
    const Vec spread = Exp(log_std) * noise;
    const Vec u = Load(p.mean + i) + spread;
    const Vec softplus = Max(-2.0f * u, Vec{}) + Log(1.0f + Exp(-2.0f * Abs(u)));
    Store(p.action + i, Tanh(u));
    Store(p.spread + i, spread);
    Store(p.is_free + i, given == log_std ? Same(1) : Vec{});
    Store(p.log_prob + i, 2.0f * (u + softplus) - log_std - 0.5f * noise * noise - kConstant);
  }
}

double SumSquares(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += 1024) {
    Vec part{};
    for (int64_t i = begin; i < n && i < begin + 1024; i += kLanes)
      part += Load(x + i) * Load(x + i);
    sum += SumOf(part);
  }
  return sum;
}

// Low and high words of x * factor, for each of the words x.
inline void MultiplyWords(WordVec x, uint64_t factor, WordVec& low, WordVec& high) {
  constexpr uint64_t kLow = 0xffffffff;
  const LongVec even = ((LongVec)x & kLow) * factor, odd = ((LongVec)x >> 32) * factor;
  low = (WordVec)((even & kLow) | (odd << 32));
  high = (WordVec)((even >> 32) | (odd & ~kLow));
}

void DrawWords(uint64_t seed, uint64_t update, uint32_t what, uint32_t first, int64_t n,
               uint32_t* word0, uint32_t* word1) {
  for (int64_t i = 0; i < n; i += kLanes) {
    WordVec x0, x1 = what - WordVec{}, x2 = static_cast<uint32_t>(update) - WordVec{},
                x3 = static_cast<uint32_t>(update >> 32) - WordVec{};
    for (int lane = 0; lane < kLanes; ++lane) x0[lane] = first + static_cast<uint32_t>(i + lane);
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      WordVec low0, high0, low1, high1;
      MultiplyWords(x0, 0xD2511F53, low0, high0);
      MultiplyWords(x2, 0xCD9E8D57, low1, high1);
      x0 = high1 ^ x1 ^ key0;
      x1 = low1;
      x2 = high0 ^ x3 ^ key1;
      x3 = low0;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    *reinterpret_cast<WordVec*>(word0 + i) = x0;
    *reinterpret_cast<WordVec*>(word1 + i) = x1;
  }
}

void Normals(const uint32_t* word0, const uint32_t* word1, int64_t n, float* normals) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const IntVec bits0 = (IntVec)(*reinterpret_cast<const WordVec*>(word0 + i) >> 8) + 1;
    const IntVec bits1 = (IntVec)(*reinterpret_cast<const WordVec*>(word1 + i) >> 8);
    const Vec u0 = __builtin_convertvector(bits0, Vec) * 0x1p-24f;  // (0, 1]
    const Vec u1 = __builtin_convertvector(bits1, Vec) * 0x1p-24f;  // [0, 1)
    Store(normals + i, Sqrt(-2.0f * Min(Log(u0), Vec{})) * CosOfTurns(u1));
  }
}

template <Vec (*kFunction)(Vec)>
void Map(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) Store(y + i, kFunction(Load(x + i)));
}

constexpr Kernels MakeKernels(const char* name) {
  return {name,    Multiply,  DotRows,   SpreadRows,    SumRows,    Transpose,
          Adam,    Squash,    Normalize, NormalizeBack, SumSquares, DrawWords,
          Normals, Map<Tanh>, Map<Exp>,  Map<Log>,      Map<Elu>};
}

}  // namespace
}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_VECTOR_PASSES_H_
