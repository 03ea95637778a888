// A follow client against real shards that restart, are killed, are replaced, or are ahead of it.
#include "common/follow_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

class FollowClientTest : public ::testing::Test {
 protected:
  FollowClientTest() {
    options_.run = "run";
    options_.table = "replay";
    options_.capacity_rows = 100'000;
    options_.stride_bytes = kTestStride;
    options_.reconnect_min = absl::Milliseconds(1);
    options_.reconnect_max = absl::Milliseconds(20);
  }

  // A shard with its rows in the folder `data`.
  std::unique_ptr<Server> StartShard(const std::string& data, int port = 0) {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = options_.capacity_rows;
    ShardOptions options;
    options.data_dir = dir_.File(data);
    options.tables.push_back(table);
    return Server::Start(absl::StrCat("127.0.0.1:", port), options).value();
  }
  void Follow(const std::vector<int>& ports) {
    options_.shards.clear();
    for (const int port : ports) options_.shards.push_back(absl::StrCat("127.0.0.1:", port));
    client_ = FollowClient::Create(options_).value();
  }
  static void Write(int port, uint64_t stream, uint64_t first, uint64_t count) {
    TestWriter writer(port);
    ASSERT_TRUE(writer.Open());
    for (uint64_t done = 0; done < count;) {
      const uint64_t part = std::min<uint64_t>(count - done, 1000);
      ASSERT_TRUE(writer.WriteRows(stream, first + done, part));
      done += part;
      ASSERT_TRUE(writer.AwaitHeld(stream, first + done));
    }
  }
  // Takes replies until the streams' rows up to these numbers have come; those of a stream come in
  // order, and once unless it is followed anew.
  void Take(const std::map<uint64_t, uint64_t>& until) {
    const auto has_all = [&] {
      return std::all_of(until.begin(), until.end(),
                         [&](const auto& stream) { return next_[stream.first] >= stream.second; });
    };
    while (!has_all()) {
      const auto reply = client_->Next(Soon());
      ASSERT_TRUE(reply.ok()) << reply.status();
      for (const proto::FollowedRows& run : reply->runs()) Check(run);
    }
  }
  void Check(const proto::FollowedRows& run) {
    const uint64_t count = run.rows().size() / kTestStride;
    uint64_t& next = next_[run.stream()];
    if (run.first_row() > next) rows_missing_ += run.first_row() - next;
    if (run.first_row() < next) twice_ += std::min(count, next - run.first_row());
    for (uint64_t i = 0; i < count; ++i) {
      EXPECT_EQ(RowAt(run.rows().data(), i).row, run.first_row() + i);
      EXPECT_EQ(RowAt(run.rows().data(), i).stream, run.stream());
    }
    next = std::max(next, run.first_row() + count);
  }
  void AwaitCaughtUp() {
    while (!client_->stats().caught_up || client_->stats().rows_behind > 0) {
      const auto reply = client_->Next(absl::Now() + absl::Milliseconds(1));
      if (!reply.ok()) continue;
      for (const proto::FollowedRows& run : reply->runs()) Check(run);
    }
  }

  TempDir dir_;
  FollowClientOptions options_;
  std::unique_ptr<FollowClient> client_;
  std::map<uint64_t, uint64_t> next_;  // by stream, the row that comes next
  uint64_t twice_ = 0;                 // rows that came again
  uint64_t rows_missing_ = 0;          // of gaps in streams
};

TEST_F(FollowClientTest, TheRowsOfAllShardsComeOnceAndInTheirStreamsOrder) {
  const auto first = StartShard("a");
  const auto second = StartShard("b");
  Write(first->port(), 1, 0, 5000);
  Write(second->port(), 2, 0, 100);
  Follow({first->port(), second->port()});
  AwaitCaughtUp();
  EXPECT_EQ(client_->stats().rows, 5100);
  Write(first->port(), 1, 5000, 1000);
  Write(second->port(), 3, 0, 70);
  Write(second->port(), 2, 100, 70);
  Take({{1, 6000}, {2, 170}, {3, 70}});
  EXPECT_EQ(twice_ + rows_missing_, 0);
  const FollowStats stats = client_->stats();
  EXPECT_EQ(stats.rows, 6240);
  EXPECT_EQ(stats.shards_up, 2);
  EXPECT_EQ(stats.rows_missed, 0);
}

TEST_F(FollowClientTest, ARestartedShardIsFollowedOnWhereItWas) {
  auto shard = StartShard("a");
  const int port = shard->port();
  Write(port, 1, 0, 100);
  Write(port, 2, 0, 1000);
  Follow({port});
  Take({{1, 100}, {2, 1000}});
  for (uint64_t round = 1; round <= 5; ++round) {
    shard->Stop(absl::ZeroDuration());
    shard = nullptr;
    shard = StartShard("a", port);
    Write(port, 1, 100 * round, 100);
    Write(port, 2, 1000 * round, 1000);
    Take({{1, 100 * (round + 1)}, {2, 1000 * (round + 1)}});
  }
  EXPECT_EQ(twice_ + rows_missing_, 0);
  EXPECT_EQ(client_->stats().restarts, 0);
  EXPECT_GE(client_->stats().reconnects, 5);
}

TEST_F(FollowClientTest, AKilledShardLosesNothingToItsFollower) {
  const auto start = [&](int port) {
    ServerOptions options{.data_dir = dir_.File("data"), .capacity_rows = 100'000};
    if (port > 0) options.flags = {absl::StrCat("--listen=127.0.0.1:", port)};
    options.flags.push_back("--set=run=run");
    return std::make_unique<ServerProcess>(options);
  };
  auto shard = start(0);
  const int port = shard->port();
  ASSERT_GT(port, 0);
  Write(port, 1, 0, 10);
  Follow({port});
  for (uint64_t round = 1; round <= 5; ++round) {
    Write(port, 1, 0, 2000 * round);
    shard->Stop(SIGKILL);
    shard = nullptr;
    shard = start(port);
    ASSERT_EQ(shard->port(), port);
    Take({{1, 2000 * round}});
  }
  EXPECT_EQ(twice_ + rows_missing_, 0);
  EXPECT_EQ(client_->stats().rows_missed, 0);
}

TEST_F(FollowClientTest, AnotherShardAtTheSameAddressIsFollowedFromItsFirstRow) {
  auto shard = StartShard("a");
  const int port = shard->port();
  Write(port, 1, 0, 1000);
  Follow({port});
  Take({{1, 1000}});
  shard = nullptr;
  shard = StartShard("b", port);
  Write(port, 1, 0, 500);
  Write(port, 2, 0, 80);
  Take({{2, 80}});
  AwaitCaughtUp();
  EXPECT_EQ(twice_, 500);
  EXPECT_EQ(client_->stats().restarts, 1);
}

TEST_F(FollowClientTest, WhatIsNotTakenIsNotRead) {
  options_.max_replies = 2;
  const auto shard = StartShard("a");
  Write(shard->port(), 1, 0, 80'000);
  Follow({shard->port()});
  // A reply that is not taken lies beside at most one more.
  const auto first = client_->Next(Soon());
  ASSERT_TRUE(first.ok());
  for (const proto::FollowedRows& run : first->runs()) Check(run);
  Write(shard->port(), 2, 0, 10'000);
  const uint64_t rows_of_reply = (256 << 10) / kTestStride;
  EXPECT_LE(client_->stats().rows, 3 * rows_of_reply);
  EXPECT_FALSE(client_->stats().caught_up);
  EXPECT_GT(client_->stats().rows_behind, 0);
  Take({{1, 80'000}, {2, 10'000}});
  AwaitCaughtUp();
}

TEST_F(FollowClientTest, RowsThatTheRingGaveUpMeanwhileAreCounted) {
  options_.capacity_rows = 1024;
  auto shard = StartShard("a");
  const int port = shard->port();
  Write(port, 1, 0, 5000);  // of which no follower missed any
  Follow({port});
  AwaitCaughtUp();
  EXPECT_EQ(client_->stats().rows_missed, 0);
  shard->Stop(absl::ZeroDuration());
  while (client_->stats().shards_up > 0) std::this_thread::yield();
  shard = nullptr;
  shard = StartShard("a", port);
  Write(port, 1, 5000, 5000);
  rows_missing_ = 0;
  Take({{1, 10'000}});
  EXPECT_GT(rows_missing_, 3000);
  EXPECT_GE(client_->stats().rows_missed, rows_missing_);
  EXPECT_LE(client_->stats().rows_missed, rows_missing_ + 64);
}

TEST_F(FollowClientTest, AnotherRunIsAPermanentError) {
  const auto shard = StartShard("a");
  Write(shard->port(), 1, 0, 10);
  options_.run = "another";
  Follow({shard->port()});
  const absl::Status status = client_->Next(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(status.message(), HasSubstr("another"));
}

TEST_F(FollowClientTest, AShardThatCannotBeReachedHoldsUpNobody) {
  const auto shard = StartShard("a");
  Write(shard->port(), 1, 0, 10);
  Follow({shard->port(), 1});
  AwaitCaughtUp();
  EXPECT_EQ(client_->stats().shards_up, 1);
  EXPECT_EQ(client_->stats().rows, 10);
}

TEST_F(FollowClientTest, StopWakesNext) {
  const auto shard = StartShard("a");
  Follow({shard->port()});
  std::thread stopper([&] { client_->Stop(); });
  EXPECT_EQ(client_->Next(Soon()).status().code(), absl::StatusCode::kCancelled);
  stopper.join();
}

}  // namespace
}  // namespace troupe
