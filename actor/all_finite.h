#ifndef TROUPE_ACTOR_ALL_FINITE_H_
#define TROUPE_ACTOR_ALL_FINITE_H_

#include "absl/types/span.h"

namespace troupe {

// Is none of these numbers infinite or NaN?
template <typename T>
bool AllFinite(absl::Span<const T> values) {
  T sum = 0;  // of zeros; an infinity or NaN times 0 is NaN
  for (const T value : values) sum += value * T{0};
  return sum == T{0};
}

}  // namespace troupe

#endif  // TROUPE_ACTOR_ALL_FINITE_H_
