// The matrix product; for kernels_*.cc only, which define kPanelRows and
// kPanelVectors.
#ifndef TROUPE_LEARNER_FUSED_CPU_VECTOR_PRODUCT_H_
#define TROUPE_LEARNER_FUSED_CPU_VECTOR_PRODUCT_H_

#include <cstdint>

#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {
namespace {

// Longer products are summed up in blocks of this length, so that a panel of B stays in the
// first-level cache.
constexpr int64_t kBlock = 384;

// The unit's derivative where its value is `h`.
template <Unit kUnit>
inline Vec SlopeAt(Vec h) {
  if constexpr (kUnit == Unit::kRelu) return h > 0.0f ? Same(1) : Vec{};
  if constexpr (kUnit == Unit::kTanh) return 1.0f - h * h;
  if constexpr (kUnit == Unit::kElu) return h > 0.0f ? Same(1) : h + 1.0f;
  return Same(1);
}

// Calls `f` with the unit as a constant.
template <typename Function>
inline void WithUnit(Unit unit, const Function& f) {
  switch (unit) {
    case Unit::kRelu:
      return f.template operator()<Unit::kRelu>();
    case Unit::kTanh:
      return f.template operator()<Unit::kTanh>();
    case Unit::kElu:
      return f.template operator()<Unit::kElu>();
    case Unit::kLinear:
      return f.template operator()<Unit::kLinear>();
  }
}

// For the units whose formula needs more registers than a panel leaves.
[[gnu::noinline]] void ActivateInMemory(Unit unit, int64_t rows, int64_t n, float* c,
                                        int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (float* x = c + r * stride; x != c + r * stride + n; x += kLanes) {
      Store(x, unit == Unit::kTanh ? Tanh(Load(x)) : Elu(Load(x)));
    }
  }
}

// Part of C in registers: kRows x (kVectors * kLanes), from row i and column j on.
template <int kRows, int kVectors>
struct Panel {
  Vec sum[kRows][kVectors];

  template <typename Function>
  void ForEach(const Function& f) {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) f(sum[r][v], r, v * kLanes);
    }
  }

  // `first`: C holds no part of the sum yet.
  void Begin(const Product& p, int64_t i, int64_t j, bool first) {
    const float* const c = p.c + i * p.c_stride + j;
    if (!first || p.add) {
      ForEach([&](Vec& x, int r, int column) { x = Load(c + r * p.c_stride + column); });
    } else if (p.bias != nullptr) {
      ForEach([&](Vec& x, int, int column) { x = Load(p.bias + j + column); });
    } else {
      ForEach([](Vec& x, int, int) { x = Vec{}; });
    }
  }

  // `a`: the first element of A's row i; its neighbours lie `row` and `column` floats on.
  void Add(const float* a, int64_t row, int64_t column, const float* b, int64_t b_stride,
           int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
      Vec x[kVectors];
      for (int v = 0; v < kVectors; ++v) x[v] = Load(b + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] += a[r * row] * x[v];
      }
      a += column;
      b += b_stride;
    }
  }

  void MultiplyBySlope(const Product& p, int64_t i, int64_t j) {
    WithUnit(p.unit, [&]<Unit kUnit>() {
      ForEach([&](Vec& x, int r, int column) {
        const int64_t h_row = p.h_rows == nullptr ? i + r : p.h_rows[i + r];
        x *= SlopeAt<kUnit>(Load(p.h + h_row * p.h_stride + j + column));
      });
    });
  }

  void End(const Product& p, int64_t i, int64_t j, bool last) {
    const bool activate = last && p.finish == Finish::kActivate;
    if (last && p.finish == Finish::kSlope) MultiplyBySlope(p, i, j);
    if (activate && p.unit == Unit::kRelu) ForEach([](Vec& x, int, int) { x = Max(x, Vec{}); });
    float* const c = p.c + i * p.c_stride + j;
    ForEach([&](Vec& x, int r, int column) { Store(c + r * p.c_stride + column, x); });
    if (activate && (p.unit == Unit::kTanh || p.unit == Unit::kElu)) {
      ActivateInMemory(p.unit, kRows, kVectors * kLanes, c, p.c_stride);
    }
  }
};

// Which columns of A and rows of B are being multiplied.
struct Block {
  int64_t begin, end;
  bool first, last;
};

template <bool kTransposed, int kRows, int kVectors>
void MultiplyPanel(const Product& p, const Block& block, int64_t i, int64_t j) {
  Panel<kRows, kVectors> panel;
  panel.Begin(p, i, j, block.first);
  const float* const b = p.b + block.begin * p.b_stride + j;
  const int64_t count = block.end - block.begin;
  if constexpr (kTransposed) {
    panel.Add(p.a + block.begin * p.a_stride + i, 1, p.a_stride, b, p.b_stride, count);
  } else {
    panel.Add(p.a + i * p.a_stride + block.begin, p.a_stride, 1, b, p.b_stride, count);
  }
  panel.End(p, i, j, block.last);
}

// The last rows, fewer than a whole panel has.
template <bool kTransposed, int kRows, int kVectors>
void MultiplyLastRows(const Product& p, const Block& block, int64_t i, int64_t j) {
  if constexpr (kRows > 0) {
    if (p.m - i == kRows) return MultiplyPanel<kTransposed, kRows, kVectors>(p, block, i, j);
    MultiplyLastRows<kTransposed, kRows - 1, kVectors>(p, block, i, j);
  }
}

template <bool kTransposed, int kVectors>
void MultiplyColumns(const Product& p, const Block& block, int64_t j) {
  int64_t i = 0;
  for (; i + kPanelRows <= p.m; i += kPanelRows) {
    MultiplyPanel<kTransposed, kPanelRows, kVectors>(p, block, i, j);
  }
  MultiplyLastRows<kTransposed, kPanelRows - 1, kVectors>(p, block, i, j);
}

template <bool kTransposed>
void MultiplyBlock(const Product& p, const Block& block) {
  constexpr int kFewVectors = kRowFloats / kLanes;
  const int64_t room = (p.n + kRowFloats - 1) / kRowFloats * kRowFloats;
  int64_t j = 0;
  for (; j + kPanelVectors * kLanes <= room; j += kPanelVectors * kLanes) {
    MultiplyColumns<kTransposed, kPanelVectors>(p, block, j);
  }
  for (; j < room; j += kRowFloats) MultiplyColumns<kTransposed, kFewVectors>(p, block, j);
}

void Multiply(const Product& p) {
  const int64_t blocks = p.k <= kBlock ? 1 : (p.k + kBlock - 1) / kBlock;
  for (int64_t b = 0; b < blocks; ++b) {
    const Block block{b * p.k / blocks, (b + 1) * p.k / blocks, b == 0, b == blocks - 1};
    if (p.a_transposed) {
      MultiplyBlock<true>(p, block);
    } else {
      MultiplyBlock<false>(p, block);
    }
  }
}

}  // namespace
}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_VECTOR_PRODUCT_H_
