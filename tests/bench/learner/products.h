#ifndef TROUPE_TESTS_BENCH_LEARNER_PRODUCTS_H_
#define TROUPE_TESTS_BENCH_LEARNER_PRODUCTS_H_

#include <cstdint>

#include "absl/time/time.h"

namespace troupe {

// How often a second LibTorch's BLAS goes through the matrix products of one SAC update (two
// layers of 256, two critics), and nothing else: what an update by that BLAS cannot exceed.
double ProductsPerSecond(int64_t observation, int64_t action, int64_t batch, int threads,
                         absl::Duration duration);

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_LEARNER_PRODUCTS_H_
