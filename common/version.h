#ifndef TROUPE_COMMON_VERSION_H_
#define TROUPE_COMMON_VERSION_H_

#include <cstdint>

namespace troupe {

// Version of a policy snapshot: (epoch, counter), ordered as one 64-bit number.  A starting learner
// takes an epoch above any that a shard has seen, so versions grow even after a restart from an
// older checkpoint.  0 means "none".
struct PolicyVersion {
  static constexpr int kCounterBits = 40;

  uint64_t epoch = 0;    // below 2^24
  uint64_t counter = 0;  // below 2^40; one per published snapshot

  uint64_t Packed() const { return epoch << kCounterBits | counter; }
  static PolicyVersion Unpack(uint64_t packed) {
    return {packed >> kCounterBits, packed & ((uint64_t{1} << kCounterBits) - 1)};
  }
};

}  // namespace troupe

#endif  // TROUPE_COMMON_VERSION_H_
