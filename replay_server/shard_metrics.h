#ifndef TROUPE_REPLAY_SERVER_SHARD_METRICS_H_
#define TROUPE_REPLAY_SERVER_SHARD_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <array>

#include "common/metrics.h"
#include "replay_server/server.h"
#include "replay_server/shard.h"

namespace troupe {

// Adds the metrics of `shard`, read from it when Prometheus asks.  REQUIRES: the shard serves.
void AddShardMetrics(const Shard* shard, Metrics* metrics);
// The same of its port.
void AddConnectionMetrics(Server* server, Metrics* metrics);

// The metrics of what happens in a shard, counted when it happens.  Outlives the shard.
class ShardObservers final {
 public:
  explicit ShardObservers(Metrics* metrics);

  // The shard made with these options reports here.
  void Watch(ShardOptions* options) const;

 private:
  static constexpr int kCodes = 17;  // of absl::Status

  prometheus::Histogram &append_seconds_, &sample_seconds_, &sync_seconds_;
  prometheus::Counter& sync_failures_;
  // By status code; none for OK and CANCELLED.
  std::array<prometheus::Counter*, kCodes> refusals_ = {};
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SHARD_METRICS_H_
