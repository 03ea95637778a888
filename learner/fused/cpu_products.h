#ifndef TROUPE_LEARNER_FUSED_CPU_PRODUCTS_H_
#define TROUPE_LEARNER_FUSED_CPU_PRODUCTS_H_

#include <cstdint>

namespace troupe {

// A matrix in memory that somebody else owns: element (i, j) at data[i * row_stride + j *
// column_stride].
struct MatrixView {
  const float* data;
  int64_t row_stride, column_stride;
};

// c[m, n] = a[m, k] b[k, n], and on top of what c holds if `add`.  b's and c's rows are contiguous,
// `b_stride` and `c_stride` floats apart; c overlaps neither.  Uses AVX-512 or AVX2 where the
// machine has them.
void MultiplyMatrices(int64_t m, int64_t n, int64_t k, const MatrixView& a, const float* b,
                      int64_t b_stride, bool add, float* c, int64_t c_stride);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CPU_PRODUCTS_H_
