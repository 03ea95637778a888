#include "learner/fused/cpu_products.h"

#include <algorithm>
#include <cstring>

namespace troupe {
namespace {

// Rows of c that a kernel keeps in registers, with two vectors of each.
constexpr int kRows = 6;
// Of k at a time: a panel of b then stays in the first-level cache.
constexpr int64_t kDepth = 256;

template <int kFloats>
struct VectorOf {
  using Type [[gnu::vector_size(kFloats * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;
};

// c[kM, 2 vectors] += a b, over `k`.
template <int kFloats, int kM>
[[gnu::always_inline]] inline void Kernel(int64_t k, const MatrixView& a, const float* b,
                                          int64_t b_stride, float* c, int64_t c_stride) {
  using Vector = typename VectorOf<kFloats>::Type;
  Vector sum[kM][2];
  for (int i = 0; i < kM; ++i) {
    const Vector* const row = reinterpret_cast<const Vector*>(c + i * c_stride);
    sum[i][0] = row[0];
    sum[i][1] = row[1];
  }
  for (int64_t p = 0; p < k; ++p) {
    const Vector* const row = reinterpret_cast<const Vector*>(b + p * b_stride);
    const Vector b0 = row[0], b1 = row[1];
    for (int i = 0; i < kM; ++i) {
      const float x = a.data[i * a.row_stride + p * a.column_stride];
      sum[i][0] += b0 * x;
      sum[i][1] += b1 * x;
    }
  }
  for (int i = 0; i < kM; ++i) {
    Vector* const row = reinterpret_cast<Vector*>(c + i * c_stride);
    row[0] = sum[i][0];
    row[1] = sum[i][1];
  }
}

// The same for up to kRows rows.
template <int kFloats>
[[gnu::always_inline]] inline void KernelOfRows(int64_t rows, int64_t k, const MatrixView& a,
                                                const float* b, int64_t b_stride, float* c,
                                                int64_t c_stride) {
  switch (rows) {
    case 1:
      return Kernel<kFloats, 1>(k, a, b, b_stride, c, c_stride);
    case 2:
      return Kernel<kFloats, 2>(k, a, b, b_stride, c, c_stride);
    case 3:
      return Kernel<kFloats, 3>(k, a, b, b_stride, c, c_stride);
    case 4:
      return Kernel<kFloats, 4>(k, a, b, b_stride, c, c_stride);
    case 5:
      return Kernel<kFloats, 5>(k, a, b, b_stride, c, c_stride);
    default:
      return Kernel<kFloats, kRows>(k, a, b, b_stride, c, c_stride);
  }
}

// The last columns, fewer than two vectors, through padded copies.
template <int kFloats>
[[gnu::always_inline]] inline void LastColumns(int64_t m, int64_t n, int64_t k, const MatrixView& a,
                                               const float* b, int64_t b_stride, float* c,
                                               int64_t c_stride) {
  constexpr int kPanel = 2 * kFloats;
  alignas(64) float b_padded[kDepth * kPanel] = {};
  for (int64_t p = 0; p < k; ++p) {
    std::memcpy(b_padded + p * kPanel, b + p * b_stride, n * sizeof(float));
  }
  alignas(64) float c_padded[kRows * kPanel];
  for (int64_t i = 0; i < m; i += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, m - i);
    for (int64_t r = 0; r < rows; ++r) {
      std::memset(c_padded + r * kPanel, 0, sizeof(float) * kPanel);
      std::memcpy(c_padded + r * kPanel, c + (i + r) * c_stride, n * sizeof(float));
    }
    KernelOfRows<kFloats>(rows, k, {a.data + i * a.row_stride, a.row_stride, a.column_stride},
                          b_padded, kPanel, c_padded, kPanel);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(c + (i + r) * c_stride, c_padded + r * kPanel, n * sizeof(float));
    }
  }
}

template <int kFloats>
[[gnu::always_inline]] inline void Multiply(int64_t m, int64_t n, int64_t k, const MatrixView& a,
                                            const float* b, int64_t b_stride, float* c,
                                            int64_t c_stride) {
  constexpr int64_t kPanel = 2 * kFloats;
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = std::min(kDepth, k - p);
    const MatrixView part{a.data + p * a.column_stride, a.row_stride, a.column_stride};
    const float* const b_part = b + p * b_stride;
    int64_t j = 0;
    for (; j + kPanel <= n; j += kPanel) {
      for (int64_t i = 0; i < m; i += kRows) {
        KernelOfRows<kFloats>(std::min<int64_t>(kRows, m - i), depth,
                              {part.data + i * a.row_stride, a.row_stride, a.column_stride},
                              b_part + j, b_stride, c + i * c_stride + j, c_stride);
      }
    }
    if (j < n) {
      LastColumns<kFloats>(m, n - j, depth, part, b_part + j, b_stride, c + j, c_stride);
    }
  }
}

#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] void MultiplyAvx2(int64_t m, int64_t n, int64_t k, const MatrixView& a,
                                              const float* b, int64_t b_stride, float* c,
                                              int64_t c_stride) {
  Multiply<8>(m, n, k, a, b, b_stride, c, c_stride);
}

[[gnu::target("avx512f")]] void MultiplyAvx512(int64_t m, int64_t n, int64_t k, const MatrixView& a,
                                               const float* b, int64_t b_stride, float* c,
                                               int64_t c_stride) {
  Multiply<16>(m, n, k, a, b, b_stride, c, c_stride);
}
#endif

void MultiplyAnywhere(int64_t m, int64_t n, int64_t k, const MatrixView& a, const float* b,
                      int64_t b_stride, float* c, int64_t c_stride) {
  Multiply<4>(m, n, k, a, b, b_stride, c, c_stride);
}

auto Choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return &MultiplyAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &MultiplyAvx2;
#endif
  return &MultiplyAnywhere;
}

}  // namespace

void MultiplyMatrices(int64_t m, int64_t n, int64_t k, const MatrixView& a, const float* b,
                      int64_t b_stride, bool add, float* c, int64_t c_stride) {
  static const auto multiply = Choose();
  if (!add) {
    for (int64_t i = 0; i < m; ++i) std::memset(c + i * c_stride, 0, n * sizeof(float));
  }
  multiply(m, n, k, a, b, b_stride, c, c_stride);
}

}  // namespace troupe
