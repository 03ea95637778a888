#ifndef TROUPE_ACTOR_ENVS_RANDOM_H_
#define TROUPE_ACTOR_ENVS_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <random>

namespace troupe {

// The random numbers of one environment's resets: the same for a seed on every platform, which
// the standard library's distributions do not promise.  Not thread-safe.
class Random final {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  // Uniform in [low, high).
  double Uniform(double low, double high) { return low + (high - low) * Unit(); }

  // Standard normal (Box and Muller 1958, one of the two values).
  double Gaussian() {
    constexpr double kTwoPi = 6.283185307179586;
    const double radius = std::sqrt(-2.0 * std::log(1.0 - Unit()));
    return radius * std::cos(kTwoPi * Unit());
  }

 private:
  // Uniform in [0, 1), all 53 bits.
  double Unit() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }

  std::mt19937_64 engine_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_RANDOM_H_
