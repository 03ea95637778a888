// The real program, killed at moments that nobody chose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "replay_server/row_log.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

// Streams 1 to 3 and how far each was acked, over all lives of the server.
class Actor final {
 public:
  // Appends from what the server holds on, until it is gone; it is killed once `rows` more rows
  // were acked.
  void AppendUntilKilled(ServerProcess* server, uint64_t rows, uint64_t seed) {
    TestWriter writer(server->port());
    ASSERT_TRUE(writer.Open({1, 2, 3}));
    std::map<uint64_t, uint64_t> next;
    for (const uint64_t stream : {1, 2, 3}) {
      next[stream] = writer.held(stream);
      ASSERT_GE(next[stream], acked_[stream]) << "acked rows of stream " << stream << " are lost";
    }
    std::thread sender([&writer, next, seed]() mutable {
      std::mt19937_64 random(seed);
      for (;;) {
        const uint64_t stream = 1 + random() % 3;
        const uint64_t count = 1 + random() % 100;
        const uint64_t again = std::min<uint64_t>(next[stream], random() % 20);  // sent twice
        if (!writer.WriteRows(stream, next[stream] - again, count + again)) return;
        next[stream] += count;
      }
    });
    const uint64_t before = Acked();
    while (writer.Read()) {
      for (const uint64_t stream : {1, 2, 3}) acked_[stream] = writer.held(stream);
      if (Acked() >= before + rows) server->Stop(SIGKILL);
    }
    sender.join();
  }

  uint64_t acked(uint64_t stream) { return acked_[stream]; }
  uint64_t Acked() { return acked_[1] + acked_[2] + acked_[3]; }

 private:
  std::map<uint64_t, uint64_t> acked_;
};

// Each row in the log once, in its place and with its own bytes; rows by stream.
std::map<uint64_t, uint64_t> CheckRows(const RowLog& log) {
  std::map<uint64_t, std::map<uint64_t, int>> seen;
  for (const uint32_t block : log.BlocksByAge()) {
    const uint32_t first_slot = log.first_row(block) % kRowsPerBlock;
    for (uint32_t i = 0; i < log.row_count(block); ++i) {
      const TestRow row = RowAt(log.row(block, first_slot + i), 0);
      EXPECT_EQ(row.row, log.first_row(block) + i);
      EXPECT_EQ(++seen[row.stream][row.row], 1) << "row " << row.row << " is there twice";
    }
  }
  std::map<uint64_t, uint64_t> rows;
  for (const auto& [stream, numbers] : seen) rows[stream] = numbers.size();
  return rows;
}

TEST(CrashTest, KilledWhileAppendingItHoldsEveryAckedRowOnce) {
  TempDir dir;
  Actor actor;
  std::mt19937_64 random(1);
  for (int life = 0; life < 12; ++life) {
    ServerProcess server({.data_dir = dir.File("data"), .capacity_rows = 4'000'000});
    ASSERT_NE(server.port(), 0);
    actor.AppendUntilKilled(&server, 1 + random() % 20'000, random());
    if (HasFatalFailure()) return;
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(dir.File("data/replay.rows"));
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ((*log)->corrupt_blocks(), 0);
    std::map<uint64_t, uint64_t> rows = CheckRows(**log);
    for (const uint64_t stream : {1, 2, 3}) {
      EXPECT_EQ(rows[stream], (*log)->HeldRows(stream));
      EXPECT_GE(rows[stream], actor.acked(stream));
    }
    EXPECT_EQ((*log)->counts().rows_appended, (*log)->rows());
    EXPECT_EQ((*log)->counts().env_steps, (*log)->rows());
  }
}

// Small enough to evict all the time, large enough that no stream is without a row in it: a restart
// would forget that one.
constexpr uint64_t kEvictingRows = 4096;

TEST(CrashTest, KilledWhileEvictingItLosesNoPlaceInAnyStream) {
  TempDir dir;
  Actor actor;
  std::mt19937_64 random(2);
  for (int life = 0; life < 12; ++life) {
    ServerProcess server({.data_dir = dir.File("data"), .capacity_rows = kEvictingRows});
    ASSERT_NE(server.port(), 0);
    actor.AppendUntilKilled(&server, 1 + random() % 20'000, random());
    if (HasFatalFailure()) return;
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(dir.File("data/replay.rows"));
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ((*log)->corrupt_blocks(), 0);
    CheckRows(**log);
    uint64_t held = 0;
    for (const uint64_t stream : {1, 2, 3}) held += (*log)->HeldRows(stream);
    EXPECT_EQ((*log)->counts().rows_appended, held);
  }
}

TEST(CrashTest, TerminatedItExitsWithZero) {
  TempDir dir;
  ServerProcess server({.data_dir = dir.File("data"), .capacity_rows = 1024});
  ASSERT_NE(server.port(), 0);
  TestWriter writer(server.port());
  ASSERT_TRUE(writer.Open());
  const int status = server.Stop(SIGTERM);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace troupe
