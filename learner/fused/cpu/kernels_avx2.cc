// Compiled for AVX2 and FMA: for machines that have them only.
#include <immintrin.h>

#include <cstdint>

namespace troupe::cpu {
namespace {

constexpr int kVectorBytes = 32;
constexpr int kPanelRows = 6, kPanelVectors = 2;

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_math.h"

namespace troupe::cpu {
namespace {

inline Vec Sqrt(Vec x) { return (Vec)_mm256_sqrt_ps((__m256)x); }

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_product.h"
// After the product, whose units they use.
#include "learner/fused/cpu/vector_norm.h"
// After all whose kernels it names.
#include "learner/fused/cpu/vector_passes.h"

namespace troupe::cpu {

extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = MakeKernels("AVX2");

}  // namespace troupe::cpu
