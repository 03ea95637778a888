#ifndef TROUPE_REPLAY_SERVER_SHARD_METRICS_H_
#define TROUPE_REPLAY_SERVER_SHARD_METRICS_H_

#include "common/metrics.h"
#include "replay_server/shard.h"

namespace troupe {

// Adds the metrics of `shard`, read from it when Prometheus asks.  REQUIRES: the shard serves.
void AddShardMetrics(const Shard* shard, Metrics* metrics);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SHARD_METRICS_H_
