#ifndef TROUPE_REPLAY_SERVER_RESTORE_H_
#define TROUPE_REPLAY_SERVER_RESTORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "replay_server/row_log_format.h"

namespace troupe {

// What was restored of one table into one new shard.
struct RestoredShard {
  std::string directory;
  uint64_t rows = 0;
  uint64_t streams = 0;
  LogCounts counts;
};

struct RestoredTable {
  std::string name;
  std::vector<RestoredShard> shards;  // in the order of the targets
  uint64_t dropped_blocks = 0;        // of all sources: something in them did not verify
  std::vector<std::string> losses;    // the first few of those, in words
};

struct Restored {
  std::vector<RestoredTable> tables;
  uint64_t snapshot_version = 0;  // 0: there was none
  std::vector<std::string> warnings;
};

// Deals the streams of the data directories `from`, which no server uses and which are not changed,
// out to new data directories `to`, evenly by rows.  A stream's rows stay together and in order;
// times sampled, priorities, the newest snapshot and the sums of all counts stay as they are; row
// ids become others.
//
// FAILED_PRECONDITION: a source is in use, or they differ in run, layout, capacity or kind of
// selector; INVALID_ARGUMENT: two sources hold the same stream; RESOURCE_EXHAUSTED: the rows do not
// fit into so many shards of that capacity; ALREADY_EXISTS: a target.  Nothing is left behind then.
absl::StatusOr<Restored> Restore(absl::Span<const std::string> from,
                                 absl::Span<const std::string> to);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_RESTORE_H_
