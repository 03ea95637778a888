#ifndef TROUPE_REPLAY_SERVER_SHARD_ID_H_
#define TROUPE_REPLAY_SERVER_SHARD_ID_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

// The random number, never 0, by which clients know the shard of `data_dir` again at whatever
// address; made and written to the directory's file shard_id if there is none.  Errors name the
// file.
absl::StatusOr<uint64_t> ReadOrMakeShardId(const std::string& data_dir);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SHARD_ID_H_
