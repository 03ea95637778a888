// Compiled for AVX-512 (F, BW, DQ, VL): for machines that have it only.
#include <immintrin.h>

#include <cstdint>

namespace troupe::cpu {
namespace {

constexpr int kVectorBytes = 64;
constexpr int kPanelRows = 8, kPanelVectors = 2;

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_math.h"

namespace troupe::cpu {
namespace {

inline Vec Sqrt(Vec x) { return (Vec)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_product.h"
// After the product, whose units they use.
#include "learner/fused/cpu/vector_norm.h"
// After all whose kernels it names.
#include "learner/fused/cpu/vector_passes.h"

namespace troupe::cpu {

extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels = MakeKernels("AVX-512");

}  // namespace troupe::cpu
