#ifndef TROUPE_TESTS_CHAOS_SHARD_KILL_LOG_CHECK_H_
#define TROUPE_TESTS_CHAOS_SHARD_KILL_LOG_CHECK_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "tests/chaos/shard_kill/findings.h"
#include "tests/chaos/shard_kill/known_rows.h"

namespace troupe {

// What its writer knows of a stream.
struct StreamFacts {
  uint64_t acked_rows = 0;
  uint64_t sent_rows = 0;  // at least as many
  bool active = false;     // so new that the ring has not evicted all of it
};

// Reads the row log of a shard that is not running, as it lies there, and holds it against the
// ledger and `streams`, which are all that ever were:
//   every row is what it should be, by KnownRows and by the ledger's CRCs;
//   the rows of a stream are without gap, none is there twice, and they reach at least to the last
//   that was acked and at most to the last that was sent;
//   only the oldest blocks are gone, and none as long as there was room.
// An error: the files cannot be read.
absl::Status CheckLog(const std::string& log_path, const std::string& ledger_path,
                      const std::map<uint64_t, StreamFacts>& streams, const KnownRows& rows,
                      Findings* findings);

}  // namespace troupe

#endif  // TROUPE_TESTS_CHAOS_SHARD_KILL_LOG_CHECK_H_
