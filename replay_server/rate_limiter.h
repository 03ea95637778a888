#ifndef TROUPE_REPLAY_SERVER_RATE_LIMITER_H_
#define TROUPE_REPLAY_SERVER_RATE_LIMITER_H_

#include <cstdint>
#include <limits>
#include <string>

namespace troupe {

struct RateLimiterOptions {
  int64_t min_size = 1;           // windows
  double samples_per_insert = 0;  // 0: no limit on either side
  double slack = 0;               // samples
  int64_t queue_length = 0;       // windows; 0: no limit
};

// What the limiter decides on.
struct LimiterCounts {
  uint64_t inserted = 0;        // windows, over all shards
  uint64_t sampled = 0;         // windows, over all shards
  uint64_t unsampled_here = 0;  // windows of this shard that were never sampled
  uint64_t inserted_here = 0;   // windows
  // What `inserted_here` may reach before the learner's next word; see Headroom().
  double share_here = std::numeric_limits<double>::infinity();
};

// Keeps sampling and inserting in step.  With I inserted, S sampled and r = samples_per_insert:
//   n samples fit     iff I >= min_size and (r == 0 or S + n <= r (I - min_size) + slack)
//   writers may write iff (r == 0 or r max(0, I - min_size) - S <= slack)
//                     and inserted_here <= share_here
//                     and (queue_length == 0 or unsampled_here < queue_length)
// A pure function of the counts: it holds none and waits for nothing.  Immutable, so thread-safe.
class RateLimiter final {
 public:
  explicit RateLimiter(const RateLimiterOptions& options) : options_(options) {}

  bool SampleFits(uint64_t n, const LimiterCounts& counts) const;
  bool WritersMayWrite(const LimiterCounts& counts) const;

  // Windows that may still be inserted over all shards: min_size + (S + slack) / r - I, not below
  // 0; infinite if r == 0.  Each shard takes an equal part of it at the learner's every word, or
  // the one that is asked first would leave the others nothing.
  double Headroom(const LimiterCounts& counts) const;

  // In words: what keeps n samples or the writers back, and what would let them go.  Empty:
  // nothing.
  std::string WhySampleWaits(uint64_t n, const LimiterCounts& counts) const;
  std::string WhyWritersWait(const LimiterCounts& counts) const;

 private:
  // Samples that the inserts so far are worth.
  double Earned(const LimiterCounts& counts) const;

  const RateLimiterOptions options_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_RATE_LIMITER_H_
