// Backups of a shard while calls go on, and restores onto another number of shards.
#include "replay_server/backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "common/crc32c.h"
#include "replay_server/restore.h"
#include "replay_server/row_log.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

bool Never() { return false; }

std::unique_ptr<RowLog> ReadLog(const std::string& directory) {
  absl::StatusOr<std::unique_ptr<RowLog>> log =
      RowLog::RecoverPrivately(directory + "/replay.rows");
  EXPECT_TRUE(log.ok()) << log.status();
  return *std::move(log);
}

// Everything about every row but where it lies: stream, number, bytes, times sampled, priority.
using RowFacts = std::tuple<uint64_t, uint64_t, std::string, int, float>;
std::multiset<RowFacts> AllRows(const std::vector<std::string>& directories) {
  std::multiset<RowFacts> rows;
  for (const std::string& directory : directories) {
    const std::unique_ptr<RowLog> log = ReadLog(directory);
    EXPECT_EQ(log->corrupt_blocks(), 0);
    for (const uint32_t block : log->BlocksByAge()) {
      for (uint32_t i = 0; i < log->row_count(block); ++i) {
        const uint32_t slot = log->first_row(block) % kRowsPerBlock + i;
        const auto* bytes = reinterpret_cast<const char*>(log->row(block, slot));
        rows.emplace(log->stream(block), log->first_row(block) + i, std::string(bytes, kTestStride),
                     log->times_sampled(block, slot),
                     log->metadata().has_priorities ? log->priority(block, slot) : 0);
      }
    }
  }
  return rows;
}

// The same, with the row ids.
std::multiset<std::pair<uint64_t, RowFacts>> AllRowsById(const std::string& directory) {
  std::multiset<std::pair<uint64_t, RowFacts>> rows;
  const std::unique_ptr<RowLog> log = ReadLog(directory);
  for (const RowFacts& facts : AllRows({directory})) {
    for (const uint32_t block : log->BlocksByAge()) {
      const uint64_t number = std::get<1>(facts);
      if (log->stream(block) != std::get<0>(facts) || number < log->first_row(block)) continue;
      if (number >= log->first_row(block) + log->row_count(block)) continue;
      rows.emplace(log->RowId(block, number % kRowsPerBlock), facts);
    }
  }
  return rows;
}

// Sums over shards, as numbers that compare.
std::vector<uint64_t> SumOfCounts(const std::vector<std::string>& directories) {
  std::vector<uint64_t> sums(6, 0);
  for (const std::string& directory : directories) {
    const LogCounts counts = ReadLog(directory)->counts();
    const std::vector<uint64_t> parts = {counts.env_steps,     counts.inserted,
                                         counts.sampled,       counts.preloaded,
                                         counts.rows_appended, counts.rows_duplicate};
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += parts[i];
  }
  return sums;
}

class BackupTest : public ::testing::Test {
 protected:
  BackupTest() {
    options_.backup_dir = dir_.File("backups");
    table_.name = "replay";
    table_.capacity_rows = 100'000;
    table_.selector = proto::PRIORITIZED;
    table_.max_times_sampled = 200;
  }

  std::unique_ptr<Server> Start(const std::string& directory) {
    options_.data_dir = directory;
    options_.tables = {table_};
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }
  static void Append(int port, uint64_t stream, uint64_t first, uint64_t count) {
    TestWriter writer(port);
    ASSERT_TRUE(writer.Open());
    for (uint64_t done = 0; done < count; done += 100) {
      ASSERT_TRUE(writer.WriteRows(stream, first + done, std::min<uint64_t>(100, count - done)));
    }
    ASSERT_TRUE(writer.AwaitHeld(stream, first + count));
  }
  // Draws windows, and gives each another priority.
  static void Sample(int port, uint32_t n) {
    TestSampler sampler(port);
    ASSERT_TRUE(sampler.Open());
    ASSERT_TRUE(sampler.Ask(n, 60000));
    proto::SampleReply reply;
    ASSERT_TRUE(sampler.Read(&reply));
    proto::UpdatePrioritiesRequest request;
    request.set_run("run");
    request.set_table("replay");
    for (const uint64_t id : reply.row_ids()) {
      request.mutable_priorities()->add_row_ids(id);
      request.mutable_priorities()->add_priorities(1 + static_cast<float>(id % 7));
    }
    grpc::ClientContext context;
    proto::UpdatePrioritiesReply updated;
    ASSERT_TRUE(
        proto::Replay::NewStub(Connect(port))->UpdatePriorities(&context, request, &updated).ok());
    EXPECT_EQ(updated.unknown(), 0);
  }
  std::string Copy(const std::string& name) { return options_.backup_dir + "/" + name; }

  TempDir dir_;
  ShardOptions options_;
  TableOptions table_;
};

TEST_F(BackupTest, ABackupHoldsWhatTheShardHoldsAndServesIt) {
  std::unique_ptr<Server> server = Start(dir_.File("data"));
  for (uint64_t stream = 1; stream <= 5; ++stream) Append(server->port(), stream, 0, 37 * stream);
  Sample(server->port(), 200);
  const std::string image = "a policy";
  ASSERT_TRUE(Publish(server->port(), TestSnapshot(5, image)).ok());
  const absl::StatusOr<proto::BackupReply> backup = Backup(&server->shard(), "monday", Never);
  ASSERT_TRUE(backup.ok()) << backup.status();
  EXPECT_EQ(backup->directory(), Copy("monday"));
  EXPECT_EQ(backup->rows(), 37 * 15);
  EXPECT_EQ(backup->rows_evicted(), 0);
  EXPECT_EQ(backup->size_bytes(), std::filesystem::file_size(Copy("monday") + "/replay.rows"));
  const proto::DescribeReply before = Describe(server->port());
  server = nullptr;
  EXPECT_EQ(AllRowsById(Copy("monday")), AllRowsById(dir_.File("data")));
  EXPECT_EQ(SumOfCounts({Copy("monday")}), SumOfCounts({dir_.File("data")}));

  server = Start(Copy("monday"));
  const proto::DescribeReply after = Describe(server->port());
  EXPECT_EQ(after.run(), "run");
  EXPECT_EQ(after.snapshot_version(), 5);
  EXPECT_EQ(after.tables(0).mass(), before.tables(0).mass());
  EXPECT_EQ(after.tables(0).rows(), before.tables(0).rows());
  EXPECT_EQ(after.tables(0).counts().SerializeAsString(),
            before.tables(0).counts().SerializeAsString());
  EXPECT_EQ(TestSubscriber(server->port()).Next().image, image);
  Append(server->port(), 5, 37 * 5, 10);
  Sample(server->port(), 100);
}

TEST_F(BackupTest, WhileRowsComeAndGoABackupIsOfOneMoment) {
  std::unique_ptr<Server> server = Start(dir_.File("data"));
  std::atomic<bool> done = false;
  std::vector<std::thread> traffic;
  for (uint64_t stream = 1; stream <= 3; ++stream) {
    traffic.emplace_back([&, stream] {
      for (uint64_t first = 0; !done && first < 30'000; first += 300) {
        Append(server->port(), stream, first, 300);
      }
    });
  }
  traffic.emplace_back([&] {
    while (!done) Sample(server->port(), 32);
  });
  for (int i = 0; i < 3; ++i) {
    const std::string name = "copy" + std::to_string(i);
    const absl::StatusOr<proto::BackupReply> backup = Backup(&server->shard(), name, Never);
    ASSERT_TRUE(backup.ok()) << backup.status();
    if (!std::filesystem::exists(Copy(name) + "/replay.rows")) continue;  // before the first row
    const std::unique_ptr<RowLog> log = ReadLog(Copy(name));
    EXPECT_EQ(log->corrupt_blocks(), 0);
    EXPECT_EQ(log->rows(), backup->rows());
    EXPECT_EQ(log->counts().rows_appended, log->rows());
    EXPECT_EQ(log->counts().env_steps, log->rows());
    uint64_t held = 0;
    uint64_t times_sampled = 0;
    for (uint64_t stream = 1; stream <= 3; ++stream) held += log->HeldRows(stream);
    EXPECT_EQ(held, log->rows());  // of each stream all from row 0 on
    for (const RowFacts& row : AllRows({Copy(name)})) times_sampled += std::get<3>(row);
    EXPECT_EQ(times_sampled, log->counts().sampled);
  }
  done = true;
  for (std::thread& thread : traffic) thread.join();
}

TEST_F(BackupTest, BlocksEvictedBeforeTheyWereCopiedAreLeftOutAndCounted) {
  table_.capacity_rows = 640;
  std::unique_ptr<Server> server = Start(dir_.File("data"));
  Append(server->port(), 1, 0, 640);
  int block = 0;
  const auto evict_some = [&] {  // asked before each block
    if (block++ == 0) Append(server->port(), 2, 0, 3 * 64);
    return false;
  };
  const absl::StatusOr<proto::BackupReply> backup = Backup(&server->shard(), "b", evict_some);
  ASSERT_TRUE(backup.ok()) << backup.status();
  EXPECT_EQ(backup->rows_evicted(), 3 * 64);
  EXPECT_EQ(backup->rows(), 7 * 64);
  const std::unique_ptr<RowLog> log = ReadLog(Copy("b"));
  EXPECT_EQ(log->corrupt_blocks(), 0);
  EXPECT_EQ(log->rows(), 7 * 64);
  EXPECT_EQ(log->HeldRows(1), 640);
  EXPECT_EQ(log->HeldRows(2), 0);
  EXPECT_EQ(log->counts().rows_appended, 640);
}

TEST_F(BackupTest, WhatCannotBeDoneIsRefusedAndLeavesNothing) {
  std::unique_ptr<Server> server = Start(dir_.File("data"));
  Append(server->port(), 1, 0, 10);
  Shard* shard = &server->shard();
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "../x", "a b", "x~"}) {
    EXPECT_EQ(Backup(shard, name, Never).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Backup(shard, std::string(65, 'a'), Never).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Backup(shard, "twice", Never).ok());
  EXPECT_EQ(Backup(shard, "twice", Never).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Backup(shard, "stopped", [] { return true; }).status().code(),
            absl::StatusCode::kCancelled);

  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit little = {1 << 20, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  const absl::Status full = Backup(shard, "large", Never).status();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_THAT(full.message(), HasSubstr("bytes for"));

  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(options_.backup_dir)) {
    left.push_back(entry.path().filename());
  }
  EXPECT_THAT(left, ::testing::ElementsAre("twice"));
}

TEST_F(BackupTest, TheProgramAsksARunningShardForABackup) {
  ServerProcess server({.data_dir = dir_.File("data"),
                        .capacity_rows = 4096,
                        .flags = {"--set=replay_server.backup_dir=" + dir_.File("backups")}});
  ASSERT_NE(server.port(), 0);
  Append(server.port(), 1, 0, 100);
  const std::string command = std::string(TROUPE_REPLAY_SERVER) +
                              " --listen=127.0.0.1:" + std::to_string(server.port()) +
                              " --log_level=warning --backup=";
  EXPECT_EQ(system((command + "first >/dev/null").c_str()), 0);
  EXPECT_NE(system((command + "first 2>/dev/null").c_str()), 0);
  EXPECT_EQ(ReadLog(Copy("first"))->rows(), 100);
}

// Three shards of several streams, sampled, with a snapshot in one of them.
class RestoreTest : public BackupTest {
 protected:
  void MakeShards() {
    table_.capacity_rows = 6400;
    for (uint64_t shard = 0; shard < 3; ++shard) {
      const std::string directory = dir_.File("old" + std::to_string(shard));
      std::unique_ptr<Server> server = Start(directory);
      for (uint64_t i = 1; i <= 7; ++i) {
        Append(server->port(), shard * 100 + i, 0, 50 * i * (shard + 1));
      }
      Sample(server->port(), 64);
      if (shard == 1) {
        ASSERT_TRUE(Publish(server->port(), TestSnapshot(9, "newest")).ok());
      } else {
        ASSERT_TRUE(Publish(server->port(), TestSnapshot(shard + 1, "older")).ok());
      }
      old_.push_back(directory);
    }
  }
  std::vector<std::string> Names(const std::string& name, int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back(dir_.File(name + std::to_string(i)));
    return names;
  }

  std::vector<std::string> old_;
};

TEST_F(RestoreTest, ThreeShardsBecomeTwoAndThenFiveWithTheSameRowsAndCounts) {
  MakeShards();
  const std::vector<std::string> two = Names("two", 2);
  const std::vector<std::string> five = Names("five", 5);
  const absl::StatusOr<Restored> first = Restore(old_, two);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::StatusOr<Restored> second = Restore(two, five);
  ASSERT_TRUE(second.ok()) << second.status();
  const std::multiset<RowFacts> rows = AllRows(old_);
  EXPECT_EQ(rows.size(), 50 * 28 * 6);
  EXPECT_TRUE(AllRows(two) == rows);
  EXPECT_TRUE(AllRows(five) == rows);
  EXPECT_EQ(SumOfCounts(two), SumOfCounts(old_));
  EXPECT_EQ(SumOfCounts(five), SumOfCounts(old_));
  for (const RestoredShard& shard : second->tables[0].shards) {
    EXPECT_NEAR(shard.rows, rows.size() / 5.0, rows.size() / 20.0);
  }
  for (const std::vector<std::string>& shards : {two, five}) {
    for (const std::string& directory : shards) {
      std::unique_ptr<Server> server = Start(directory);
      const proto::DescribeReply found = Describe(server->port());
      EXPECT_EQ(found.snapshot_version(), 9);
      EXPECT_EQ(found.tables(0).corrupt_blocks(), 0);
      EXPECT_GE(found.tables(0).rows_appended(), found.tables(0).rows());
      Sample(server->port(), 32);
    }
  }
}

TEST_F(RestoreTest, SourcesAreNotChanged) {
  MakeShards();
  const auto digests = [this] {
    std::vector<uint32_t> crcs;
    for (const std::string& directory : old_) {
      for (const char* name : {"/replay.rows", "/snapshot"}) {
        std::ifstream file(directory + name, std::ios::binary);
        const std::string bytes((std::istreambuf_iterator<char>(file)), {});
        crcs.push_back(Crc32c(0, bytes.data(), bytes.size()));
      }
    }
    return crcs;
  };
  const std::vector<uint32_t> before = digests();
  ASSERT_TRUE(Restore(old_, Names("new", 4)).ok());
  EXPECT_EQ(digests(), before);
}

TEST_F(RestoreTest, WhatCannotBeDoneIsRefusedAndLeavesNothing) {
  MakeShards();
  const absl::Status full = Restore(old_, Names("new", 1)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("8400 rows of 21 streams in"));
  EXPECT_THAT(full.message(), HasSubstr("1 shards of 100 blocks (6400 rows)"));
  EXPECT_EQ(Restore({old_[0], dir_.File("none")}, Names("new", 1)).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Restore({old_[0]}, {old_[1]}).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Restore({old_[0], old_[0]}, Names("new", 2)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  {
    std::unique_ptr<Server> server = Start(old_[0]);
    EXPECT_EQ(Restore(old_, Names("new", 2)).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  std::filesystem::copy(old_[0], dir_.File("again"));
  const absl::Status twice = Restore({old_[0], dir_.File("again")}, Names("new", 2)).status();
  EXPECT_THAT(twice.message(), HasSubstr("two sources hold rows of stream"));
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_THAT(entry.path().filename(), ::testing::Not(::testing::StartsWith("new")));
  }
}

}  // namespace
}  // namespace troupe
