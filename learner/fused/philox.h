#ifndef TROUPE_LEARNER_FUSED_PHILOX_H_
#define TROUPE_LEARNER_FUSED_PHILOX_H_

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define TROUPE_HOST_DEVICE __host__ __device__
#else
#define TROUPE_HOST_DEVICE
#endif

namespace troupe {

// Random numbers that are a function of a key and a counter: Philox4x32-10 (Salmon et al., Parallel
// Random Numbers: As Easy as 1, 2, 3, SC 2011).  An engine draws those of update u without having
// drawn those before, on any number of threads, and a resumed one draws the same.

struct RandomWords {
  uint32_t x[4];
};

TROUPE_HOST_DEVICE inline RandomWords Philox(uint64_t key, RandomWords counter) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  uint32_t* const x = counter.x;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * x[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * x[2];
    const uint32_t x1 = x[1], x3 = x[3];
    x[0] = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ key0;
    x[1] = static_cast<uint32_t>(product1);
    x[2] = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ key1;
    x[3] = static_cast<uint32_t>(product0);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// What the numbers of an update are drawn for.
enum class Draw : uint32_t { kTransition = 0, kNextAction = 1, kAction = 2, kSubset = 3 };

// Those of element `index` (below 2^32) of update `update`.
TROUPE_HOST_DEVICE inline RandomWords DrawWords(uint64_t seed, uint64_t update, Draw what,
                                                uint32_t index) {
  return Philox(seed, {{index, static_cast<uint32_t>(what), static_cast<uint32_t>(update),
                        static_cast<uint32_t>(update >> 32)}});
}

// floor(u * n), u uniform in [0, 1); n at most 2^32.
TROUPE_HOST_DEVICE inline uint64_t DrawBelow(const RandomWords& words, uint64_t n) {
  return (words.x[0] * n) >> 32;
}

// The first `k` of `order` become different ones of 0, ..., n - 1, all choices alike (Fisher and
// Yates); `order` has room for n.
TROUPE_HOST_DEVICE inline void DrawSubset(uint64_t seed, uint64_t update, int32_t n, int32_t k,
                                          int32_t* order) {
  for (int32_t i = 0; i < n; ++i) order[i] = i;
  for (int32_t i = 0; i < k; ++i) {
    const RandomWords words = DrawWords(seed, update, Draw::kSubset, static_cast<uint32_t>(i));
    const int32_t j = i + static_cast<int32_t>(DrawBelow(words, static_cast<uint64_t>(n - i)));
    const int32_t drawn = order[j];
    order[j] = order[i];
    order[i] = drawn;
  }
}

// Standard normal (Box and Muller 1958), at most 5.8 from 0.
TROUPE_HOST_DEVICE inline float DrawNormal(const RandomWords& words) {
  const float u1 = static_cast<float>((words.x[0] >> 8) + 1) * 0x1p-24f;  // (0, 1]
  const float u2 = static_cast<float>(words.x[1] >> 8) * 0x1p-24f;        // [0, 1)
#if defined(__CUDA_ARCH__)
  const float cosine = cospif(2 * u2);
#else
  const float cosine = cosf(6.28318530718f * u2);
#endif
  return sqrtf(-2 * logf(u1)) * cosine;
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PHILOX_H_
