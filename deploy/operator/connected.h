#ifndef TROUPE_DEPLOY_OPERATOR_CONNECTED_H_
#define TROUPE_DEPLOY_OPERATOR_CONNECTED_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/replay.pb.h"

namespace troupe {

// What one shard said at two moments.
struct ShardReports {
  proto::DescribeReply before;
  proto::DescribeReply after;
};

// A process that is connected to shards.
struct Connected {
  std::string kind;         // "actor", "learner", "follower", "evaluator" or "publisher"
  std::string client;       // as it names itself, else its address
  std::string role;         // of its certificate
  std::set<size_t> shards;  // that it has calls with
  uint32_t calls = 0;
  uint32_t streams = 0;        // that it writes
  double rows_per_second = 0;  // that it writes or follows
  double windows_per_second = 0;
  uint64_t snapshot_version = 0;  // newest that it was sent; 0: it subscribes to none
  bool held_back = false;         // told to make no rows for now
};

// Who has calls with the shards, actors last; rates are over `interval`.
std::vector<Connected> WhoIsConnected(const std::vector<ShardReports>& shards,
                                      absl::Duration interval);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_CONNECTED_H_
