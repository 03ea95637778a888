#include "replay_server/rate_limiter.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace troupe {

double RateLimiter::Earned(const LimiterCounts& counts) const {
  const double after_warm_up =
      static_cast<double>(counts.inserted) - static_cast<double>(options_.min_size);
  return options_.samples_per_insert * std::max(0.0, after_warm_up);
}

bool RateLimiter::SampleFits(uint64_t n, const LimiterCounts& counts) const {
  if (counts.inserted < static_cast<uint64_t>(options_.min_size)) return false;
  return options_.samples_per_insert == 0 ||
         static_cast<double>(counts.sampled) + static_cast<double>(n) <=
             Earned(counts) + options_.slack;
}

bool RateLimiter::WritersMayWrite(const LimiterCounts& counts) const {
  const bool too_far_ahead = options_.samples_per_insert > 0 &&
                             Earned(counts) - static_cast<double>(counts.sampled) > options_.slack;
  const bool queue_full = options_.queue_length > 0 &&
                          counts.unsampled_here >= static_cast<uint64_t>(options_.queue_length);
  const bool share_is_used = static_cast<double>(counts.inserted_here) > counts.share_here;
  return !too_far_ahead && !share_is_used && !queue_full;
}

double RateLimiter::Headroom(const LimiterCounts& counts) const {
  if (options_.samples_per_insert == 0) return std::numeric_limits<double>::infinity();
  const double earned =
      (static_cast<double>(counts.sampled) + options_.slack) / options_.samples_per_insert;
  return std::max(
      0.0, static_cast<double>(options_.min_size) + earned - static_cast<double>(counts.inserted));
}

std::string RateLimiter::WhySampleWaits(uint64_t n, const LimiterCounts& counts) const {
  if (SampleFits(n, counts)) return "";
  if (counts.inserted < static_cast<uint64_t>(options_.min_size)) {
    return absl::StrCat("min_size: ", counts.inserted, " of ", options_.min_size,
                        " windows inserted; ", options_.min_size - counts.inserted,
                        " more inserts free it");
  }
  const double missing = static_cast<double>(counts.sampled) + static_cast<double>(n) -
                         Earned(counts) - options_.slack;
  return absl::StrCat("samples_per_insert: ", counts.sampled, " sampled + ", n, " wanted > ",
                      options_.samples_per_insert, " * (", counts.inserted, " inserted - ",
                      options_.min_size, ") + slack ", options_.slack, "; ",
                      std::ceil(missing / options_.samples_per_insert), " more inserts free it");
}

std::string RateLimiter::WhyWritersWait(const LimiterCounts& counts) const {
  if (WritersMayWrite(counts)) return "";
  const double ahead = Earned(counts) - static_cast<double>(counts.sampled);
  if (options_.samples_per_insert > 0 && ahead > options_.slack) {
    return absl::StrCat("samples_per_insert: ", options_.samples_per_insert, " * (",
                        counts.inserted, " inserted - ", options_.min_size, ") - ", counts.sampled,
                        " sampled > slack ", options_.slack, "; ",
                        std::ceil(ahead - options_.slack), " more samples free it");
  }
  if (static_cast<double>(counts.inserted_here) > counts.share_here) {
    return absl::StrCat("samples_per_insert: this shard's part of ", counts.inserted,
                        " windows inserted for ", counts.sampled, " sampled is ",
                        std::floor(counts.share_here), ", and it has ", counts.inserted_here,
                        "; the learner's next request frees it");
  }
  return absl::StrCat("queue_length: ", counts.unsampled_here,
                      " windows were never sampled, at most ", options_.queue_length, "; ",
                      counts.unsampled_here - options_.queue_length + 1,
                      " more sampled windows free it");
}

}  // namespace troupe
