#include "learner/fused/cpu/kernels.h"

namespace troupe::cpu {

extern const Kernels kPortableKernels;
#if defined(TROUPE_X86_KERNELS)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

const Kernels* KernelsFor(InstructionSet set) {
  if (set == InstructionSet::kPortable) return &kPortableKernels;
#if defined(TROUPE_X86_KERNELS)
  if (set == InstructionSet::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2Kernels
                                                                           : nullptr;
  }
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512) return &kAvx512Kernels;
#endif
  return nullptr;
}

const Kernels& BestKernels() {
  if (const Kernels* const kernels = KernelsFor(InstructionSet::kAvx512)) return *kernels;
  if (const Kernels* const kernels = KernelsFor(InstructionSet::kAvx2)) return *kernels;
  return kPortableKernels;
}

}  // namespace troupe::cpu
