#ifndef TROUPE_COMMON_RATE_LIMIT_H_
#define TROUPE_COMMON_RATE_LIMIT_H_

#include <cstdint>
#include <limits>
#include <string>

namespace troupe {

// proto/config.proto's RateLimiter.
struct RateLimit {
  int64_t min_size = 1;           // windows
  double samples_per_insert = 0;  // 0: no limit on either side
  double slack = 0;               // samples
  int64_t queue_length = 0;       // windows of one shard; 0: no limit
};

// What a limiter decides on.
struct LimiterCounts {
  // Windows, over all shards.
  uint64_t inserted = 0;
  uint64_t preloaded = 0;
  uint64_t sampled = 0;
  // Windows of the shard whose writers ask.
  uint64_t inserted_here = 0;
  uint64_t unsampled_here = 0;  // never sampled
  // What `inserted_here` may reach before the learner's next word; see Headroom().
  double share_here = std::numeric_limits<double>::infinity();
  // Too few windows are selectable on the shard for any sampler, or for one that waits.
  bool starved_here = false;
};

// What holds a sample or the writers back.
enum class Limit { kNone, kMinSize, kSamplesPerInsert, kShare, kQueueLength };

// Keeps sampling and inserting in step.  With I inserted, P preloaded and S sampled windows,
// r = samples_per_insert and m = max(0, min_size - P), the inserts that the warm-up takes:
//   n samples fit     iff I + P >= min_size and (r == 0 or S + n <= r max(0, I - m) + slack)
//   writers may write iff starved_here, or all of
//                         r == 0 or r max(0, I - m) - S <= slack
//                         inserted_here <= share_here
//                         queue_length == 0 or unsampled_here < queue_length or I + P < min_size
// Samplers that miss windows and writers that are held back would wait for each other for ever:
// a shard that comes back without its rows still has the counts.  So a starved shard lets its
// writers go on whatever the counts are, and so does a full queue before min_size is reached.
//
// A pure function of the counts: it holds none and waits for nothing.  Immutable, so thread-safe.
// The shards ask it for writers and samplers, the learner's client before it asks a shard.
class RateLimiter final {
 public:
  explicit RateLimiter(const RateLimit& limit) : limit_(limit) {}

  const RateLimit& limit() const { return limit_; }

  Limit SampleLimit(uint64_t n, const LimiterCounts& counts) const;
  Limit WriterLimit(const LimiterCounts& counts) const;
  bool SampleFits(uint64_t n, const LimiterCounts& counts) const {
    return SampleLimit(n, counts) == Limit::kNone;
  }
  bool WritersMayWrite(const LimiterCounts& counts) const {
    return WriterLimit(counts) == Limit::kNone;
  }

  // Windows that may still be inserted over all shards: m + (S + slack) / r - I, not below 0;
  // infinite if r == 0.  Each shard takes an equal part of it at the learner's every word, or the
  // one that is asked first would leave the others nothing.
  double Headroom(const LimiterCounts& counts) const;

  // In words: what keeps n samples or the writers back, and what would let them go.  Empty:
  // nothing.
  std::string WhySampleWaits(uint64_t n, const LimiterCounts& counts) const;
  std::string WhyWritersWait(const LimiterCounts& counts) const;

 private:
  // m, in windows.
  double WarmUp(const LimiterCounts& counts) const;
  bool WarmedUp(const LimiterCounts& counts) const;
  // Samples that the inserts so far are worth.
  double Earned(const LimiterCounts& counts) const;
  // Samples by which the inserts are ahead of the band; not above 0: within it.
  double Excess(const LimiterCounts& counts) const;
  // "r * (I inserted - m)", with the preloaded windows if there are any.
  std::string EarnedInWords(const LimiterCounts& counts) const;

  const RateLimit limit_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_RATE_LIMIT_H_
