#include "common/rate_limit.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace troupe {
namespace {

double AsDouble(uint64_t count) { return static_cast<double>(count); }

// A number of windows as text without an exponent.
std::string Whole(double windows) {
  return absl::StrCat(static_cast<int64_t>(std::min(windows, 9e18)));
}

}  // namespace

double RateLimiter::WarmUp(const LimiterCounts& counts) const {
  return std::max(0.0, static_cast<double>(limit_.min_size) - AsDouble(counts.preloaded));
}

bool RateLimiter::WarmedUp(const LimiterCounts& counts) const {
  return AsDouble(counts.inserted) >= WarmUp(counts);
}

double RateLimiter::Earned(const LimiterCounts& counts) const {
  return limit_.samples_per_insert * std::max(0.0, AsDouble(counts.inserted) - WarmUp(counts));
}

double RateLimiter::Excess(const LimiterCounts& counts) const {
  if (limit_.samples_per_insert == 0) return 0;
  return Earned(counts) - AsDouble(counts.sampled) - limit_.slack;
}

Limit RateLimiter::SampleLimit(uint64_t n, const LimiterCounts& counts) const {
  if (!WarmedUp(counts)) return Limit::kMinSize;
  const bool fits = limit_.samples_per_insert == 0 ||
                    AsDouble(counts.sampled) + AsDouble(n) <= Earned(counts) + limit_.slack;
  return fits ? Limit::kNone : Limit::kSamplesPerInsert;
}

Limit RateLimiter::WriterLimit(const LimiterCounts& counts) const {
  if (counts.starved_here) return Limit::kNone;
  if (Excess(counts) > 0) return Limit::kSamplesPerInsert;
  if (AsDouble(counts.inserted_here) > counts.share_here) return Limit::kShare;
  const bool queue_is_full = limit_.queue_length > 0 && WarmedUp(counts) &&
                             counts.unsampled_here >= static_cast<uint64_t>(limit_.queue_length);
  return queue_is_full ? Limit::kQueueLength : Limit::kNone;
}

double RateLimiter::Headroom(const LimiterCounts& counts) const {
  if (limit_.samples_per_insert == 0) return std::numeric_limits<double>::infinity();
  const double paid = (AsDouble(counts.sampled) + limit_.slack) / limit_.samples_per_insert;
  return std::max(0.0, WarmUp(counts) + paid - AsDouble(counts.inserted));
}

std::string RateLimiter::EarnedInWords(const LimiterCounts& counts) const {
  const std::string preloaded =
      counts.preloaded == 0 ? "" : absl::StrCat(" after ", counts.preloaded, " preloaded");
  return absl::StrCat(limit_.samples_per_insert, " * (", counts.inserted, " inserted - ",
                      Whole(WarmUp(counts)), preloaded, ")");
}

std::string RateLimiter::WhySampleWaits(uint64_t n, const LimiterCounts& counts) const {
  if (SampleFits(n, counts)) return "";
  double missing = WarmUp(counts) - AsDouble(counts.inserted);
  if (limit_.samples_per_insert > 0) {
    const double unpaid = AsDouble(counts.sampled) + AsDouble(n) - limit_.slack;
    missing = std::max(missing, WarmUp(counts) - AsDouble(counts.inserted) +
                                    std::ceil(unpaid / limit_.samples_per_insert));
  }
  const std::string frees = absl::StrCat("; ", Whole(missing), " more inserts free it");
  if (!WarmedUp(counts)) {
    const std::string preloaded =
        counts.preloaded == 0 ? "" : absl::StrCat(" and ", counts.preloaded, " preloaded");
    return absl::StrCat("min_size: ", counts.inserted, " of ", limit_.min_size, " windows inserted",
                        preloaded, frees);
  }
  return absl::StrCat("samples_per_insert: ", counts.sampled, " sampled + ", n, " wanted > ",
                      EarnedInWords(counts), " + slack ", limit_.slack, frees);
}

std::string RateLimiter::WhyWritersWait(const LimiterCounts& counts) const {
  if (WritersMayWrite(counts)) return "";
  std::vector<std::string> reasons;
  if (const double excess = Excess(counts); excess > 0) {
    reasons.push_back(absl::StrCat("samples_per_insert: ", EarnedInWords(counts), " - ",
                                   counts.sampled, " sampled > slack ", limit_.slack, "; ",
                                   Whole(std::ceil(excess)), " more samples free it"));
  } else if (AsDouble(counts.inserted_here) > counts.share_here) {
    reasons.push_back(absl::StrCat("samples_per_insert: this shard's part of ", counts.inserted,
                                   " windows inserted for ", counts.sampled, " sampled is ",
                                   Whole(counts.share_here), ", and it has ", counts.inserted_here,
                                   "; the learner's next request frees it"));
  }
  if (limit_.queue_length > 0 &&
      counts.unsampled_here >= static_cast<uint64_t>(limit_.queue_length) && WarmedUp(counts)) {
    reasons.push_back(absl::StrCat(
        "queue_length: ", counts.unsampled_here,
        " windows of this shard were never sampled, at most ", limit_.queue_length, "; ",
        counts.unsampled_here - limit_.queue_length + 1, " more sampled windows free it"));
  }
  return absl::StrJoin(reasons, "; and ");
}

}  // namespace troupe
