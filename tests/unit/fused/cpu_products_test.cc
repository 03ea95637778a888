#include "learner/fused/cpu_products.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

std::vector<float> Random(int64_t n) {
  static std::mt19937 engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> numbers(n);
  for (float& number : numbers) number = uniform(engine);
  return numbers;
}

// Against the sum written out, with strides wider than the matrices and a margin around c.
void Check(int64_t m, int64_t n, int64_t k, bool transposed, bool add) {
  const int64_t a_stride = (transposed ? m : k) + 3, b_stride = n + 5, c_stride = n + 7;
  const std::vector<float> a = Random(a_stride * (transposed ? k : m)), b = Random(b_stride * k);
  const std::vector<float> before = Random(c_stride * m);
  std::vector<float> c = before;
  const MatrixView view =
      transposed ? MatrixView{a.data(), 1, a_stride} : MatrixView{a.data(), a_stride, 1};
  MultiplyMatrices(m, n, k, view, b.data(), b_stride, add, c.data(), c_stride);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < c_stride; ++j) {
      double expected = before[i * c_stride + j];
      if (j < n) {
        if (!add) expected = 0;
        for (int64_t p = 0; p < k; ++p) {
          expected += static_cast<double>(view.data[i * view.row_stride + p * view.column_stride]) *
                      b[p * b_stride + j];
        }
      }
      ASSERT_NEAR(c[i * c_stride + j], expected, 1e-5 * std::sqrt(static_cast<double>(k)))
          << m << "x" << n << "x" << k << " at " << i << ", " << j;
    }
  }
}

TEST(CpuProductsTest, AreTheSumsWrittenOutForEverySize) {
  for (const int64_t m : {1, 5, 6, 7, 24, 65}) {
    for (const int64_t n : {1, 8, 15, 16, 17, 32, 70}) {
      for (const int64_t k : {1, 2, 31, 256, 300}) {
        Check(m, n, k, /*transposed=*/false, /*add=*/false);
        Check(m, n, k, /*transposed=*/true, /*add=*/true);
      }
    }
  }
}

}  // namespace
}  // namespace troupe
