#ifndef TROUPE_COMMON_METRICS_CHECK_H_
#define TROUPE_COMMON_METRICS_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace troupe {

// Asks the process at `host`:`port` for its metrics, as Prometheus does.  OK if it answers 200
// within `timeout`; else UNAVAILABLE, which says what came instead.
absl::Status CheckMetrics(const std::string& host, int port, absl::Duration timeout);

}  // namespace troupe

#endif  // TROUPE_COMMON_METRICS_CHECK_H_
