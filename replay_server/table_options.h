#ifndef TROUPE_REPLAY_SERVER_TABLE_OPTIONS_H_
#define TROUPE_REPLAY_SERVER_TABLE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "common/rate_limit.h"
#include "proto/config.pb.h"
#include "replay_server/disk_sync.h"
#include "replay_server/window_cutter.h"

namespace troupe {

struct TableOptions {
  std::string name;
  std::string path;  // of the row log
  uint64_t capacity_rows = 0;
  WindowRule window;
  proto::SelectorKind selector = proto::UNIFORM;
  double priority_exponent = 0.6;
  bool never_evict = false;
  uint8_t max_times_sampled = 0;  // 0: no limit
  RateLimit rate_limit;
  int num_shards = 1;     // that share the rate limiter's band
  bool ack_disk = false;  // rows are acked once they are on the disk
  DiskSyncOptions disk_sync = {};
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_TABLE_OPTIONS_H_
