#ifndef TROUPE_TESTS_UNIT_REPLAY_SERVER_FOLLOWED_ROWS_H_
#define TROUPE_TESTS_UNIT_REPLAY_SERVER_FOLLOWED_ROWS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/replay.pb.h"
#include "replay_server/row_log_format.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {

// What a follower of the test layout has, over any number of calls.  Checks that every row is
// what it says, comes once and in its stream's order, and that blocks begin in order.
class FollowedRowsModel final {
 public:
  void Add(uint64_t block, uint64_t stream, uint64_t first_row, absl::string_view rows) {
    ASSERT_GT(rows.size(), 0);
    ASSERT_EQ(rows.size() % kTestStride, 0);
    const uint64_t count = rows.size() / kTestStride;
    if (blocks_.contains(block)) {
      EXPECT_EQ(blocks_[block].end, first_row) << "block " << block;
    } else {
      EXPECT_TRUE(blocks_.empty() || blocks_.rbegin()->first < block) << "block " << block;
      blocks_[block] = {first_row, first_row};
    }
    EXPECT_EQ(first_row / kRowsPerBlock, (first_row + count - 1) / kRowsPerBlock);
    EXPECT_GE(first_row, next_row(stream)) << "stream " << stream;
    blocks_[block].end = first_row + count;
    std::vector<Range>& had = streams_[stream];
    if (had.empty() || had.back().end != first_row) had.push_back({first_row, first_row});
    had.back().end = first_row + count;
    rows_ += count;
    for (uint64_t i = 0; i < count; ++i) {
      const TestRow row = RowAt(rows.data(), i);
      ASSERT_EQ(row.stream, stream);
      ASSERT_EQ(row.row, first_row + i);
    }
  }
  void Add(const proto::FollowReply& reply) {
    for (const proto::FollowedRows& run : reply.runs()) {
      Add(run.block(), run.stream(), run.first_row(), run.rows());
    }
  }

  // Where to go on.
  proto::FollowRequest Position() const {
    proto::FollowRequest request;
    request.set_run("run");
    request.set_table("replay");
    request.set_next_block(blocks_.empty() ? 0 : blocks_.rbegin()->first + 1);
    for (const auto& [generation, rows] : blocks_) {
      if (rows.end % kRowsPerBlock == 0) continue;
      proto::BlockPosition* position = request.add_partial();
      position->set_block(generation);
      position->set_rows(static_cast<uint32_t>(rows.end - rows.begin));
    }
    return request;
  }
  uint64_t rows() const { return rows_; }
  // One more than the last row that came of a stream.
  uint64_t next_row(uint64_t stream) {
    return streams_[stream].empty() ? 0 : streams_[stream].back().end;
  }
  bool Has(uint64_t stream, uint64_t row) {
    const std::vector<Range>& had = streams_[stream];
    return std::any_of(had.begin(), had.end(),
                       [row](const Range& r) { return r.begin <= row && row < r.end; });
  }

 private:
  struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  std::map<uint64_t, Range> blocks_;
  std::map<uint64_t, std::vector<Range>> streams_;
  uint64_t rows_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLAY_SERVER_FOLLOWED_ROWS_H_
