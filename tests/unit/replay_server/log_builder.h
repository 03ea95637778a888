#ifndef TROUPE_TESTS_UNIT_REPLAY_SERVER_LOG_BUILDER_H_
#define TROUPE_TESTS_UNIT_REPLAY_SERVER_LOG_BUILDER_H_

#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "replay_server/row_log.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {

inline LogMetadata TestMetadata(uint64_t num_blocks) {
  LogMetadata metadata;
  metadata.run = "run";
  metadata.table = "replay";
  metadata.layout = TestLayoutProto().SerializeAsString();
  metadata.stride_bytes = kTestStride;
  metadata.num_blocks = num_blocks;
  return metadata;
}

inline std::unique_ptr<RowLog> MakeLog(const std::string& path, uint64_t num_blocks) {
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Create(path, TestMetadata(num_blocks));
  EXPECT_TRUE(log.ok()) << log.status();
  return *std::move(log);
}

inline std::unique_ptr<RowLog> RecoverLog(const std::string& path) {
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(path);
  EXPECT_TRUE(log.ok()) << log.status();
  return *std::move(log);
}

// Appends `rows` to a stream as a table does.  `before_evict` and `before_commit` may be empty.
inline void AppendRows(RowLog* log, uint64_t stream, absl::string_view rows,
                       const std::function<void(uint32_t)>& before_evict = {},
                       const std::function<void(const StagedRows&)>& before_commit = {}) {
  while (!rows.empty()) {
    if (const uint32_t victim = log->Victim(stream); victim != kNoBlock) {
      if (before_evict) before_evict(victim);
      log->Evict(victim);
    }
    const StagedRows staged = log->Stage(stream, rows);
    LogCounts counts = log->counts();
    counts.rows_appended += staged.count;
    counts.env_steps += staged.count - std::popcount(staged.finals);
    if (before_commit) before_commit(staged);
    log->Commit(staged, counts);
    rows.remove_prefix(staged.count * log->stride_bytes());
  }
}

// Every row says that it is where it is.  `finals`: the numbers of final rows, of any stream.
inline void ExpectRowsInPlace(const RowLog& log, const std::set<uint64_t>& finals) {
  std::set<std::pair<uint64_t, uint64_t>> seen;
  uint64_t num_rows = 0;
  for (const uint32_t block : log.BlocksByAge()) {
    const uint32_t first_slot = log.first_row(block) % kRowsPerBlock;
    for (uint32_t slot = first_slot; slot < first_slot + log.row_count(block); ++slot) {
      const TestRow row = RowAt(log.row(block, slot), 0);
      EXPECT_EQ(row.row, log.base_row(block) + slot);
      EXPECT_LE(row.row, log.HeldRows(row.stream));
      EXPECT_EQ(log.finals(block) >> slot & 1, finals.contains(row.row) ? 1u : 0u);
      EXPECT_TRUE(seen.emplace(row.stream, row.row).second) << "row " << row.row << " twice";
      ++num_rows;
    }
  }
  EXPECT_EQ(log.rows(), num_rows);
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLAY_SERVER_LOG_BUILDER_H_
