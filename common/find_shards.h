#ifndef TROUPE_COMMON_FIND_SHARDS_H_
#define TROUPE_COMMON_FIND_SHARDS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/program.h"
#include "common/shard_directory.h"

namespace troupe {

// A directory of the shards that the program's configuration names, once it has found them; what it
// finds, and what it waits for, is logged.  CANCELLED: a stop was requested first.
absl::StatusOr<std::shared_ptr<ShardDirectory>> FindShards(const Program& program);

}  // namespace troupe

#endif  // TROUPE_COMMON_FIND_SHARDS_H_
