// For machines of every kind.
#include <cstdint>

namespace troupe::cpu {
namespace {

constexpr int kVectorBytes = 16;
constexpr int kPanelRows = 4, kPanelVectors = 4;

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_math.h"

namespace troupe::cpu {
namespace {

inline Vec Sqrt(Vec x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

}  // namespace
}  // namespace troupe::cpu

#include "learner/fused/cpu/vector_product.h"
// After the product, whose units they use.
#include "learner/fused/cpu/vector_norm.h"
// After all whose kernels it names.
#include "learner/fused/cpu/vector_passes.h"

namespace troupe::cpu {

extern const Kernels kPortableKernels;
const Kernels kPortableKernels = MakeKernels("portable");

}  // namespace troupe::cpu
