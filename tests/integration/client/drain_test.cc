// Shards that an operator drains, and the writers that are turned away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "actor/row_writer.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

// What must not happen is given this long to happen.
constexpr absl::Duration kAWhile = absl::Milliseconds(100);

absl::Time Soon() { return absl::Now() + absl::Minutes(2); }

class DrainTest : public ::testing::Test {
 protected:
  void StartShard(const RateLimit& limit = {}) {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 4096;
    table.rate_limit = limit;
    ShardOptions options;
    options.data_dir = dir_.File("data" + std::to_string(servers_.size()));
    options.tables.push_back(table);
    auto server = Server::Start("127.0.0.1:0", options);
    ASSERT_TRUE(server.ok()) << server.status();
    addresses_.push_back("127.0.0.1:" + std::to_string((*server)->port()));
    servers_.push_back(*std::move(server));
  }

  void StartWriter() {
    RowWriterOptions options;
    options.shards = addresses_;
    options.run = "run";
    options.table = "replay";
    options.message_bytes = 10 * TestLayout().stride_bytes();
    options.max_delay = absl::Milliseconds(1);
    options.reconnect_min = absl::Milliseconds(1);
    options.move_after = absl::Hours(1);  // moves are the drain's alone
    writer_ = *RowWriter::Create(options, TestLayout());
    ASSERT_TRUE(writer_->WaitConnected(Soon()).ok());
  }

  absl::Status Append() {
    return writer_->Append(0, [](absl::Span<char>) {}).status();
  }
  void AppendRows(int rows) {
    for (int i = 0; i < rows; ++i) ASSERT_TRUE(Append().ok());
  }

  proto::DrainReply Drain(size_t shard, bool undo = false) {
    grpc::ClientContext context;
    proto::DrainRequest request;
    request.set_undo(undo);
    proto::DrainReply reply;
    const grpc::Status status =
        proto::Replay::NewStub(Connect(servers_[shard]->port()))->Drain(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  void DrainUntilDone(size_t shard) {
    const absl::Time deadline = Soon();
    while (Drain(shard).writers_to_drain() > 0) {
      ASSERT_LT(absl::Now(), deadline);
      std::this_thread::yield();
    }
  }
  proto::DescribeReply DescribeCalls(size_t shard) {
    grpc::ClientContext context;
    proto::DescribeRequest request;
    request.set_with_calls(true);
    proto::DescribeReply reply;
    const grpc::Status status = proto::Replay::NewStub(Connect(servers_[shard]->port()))
                                    ->Describe(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  uint64_t RowsAt(size_t shard) { return Describe(servers_[shard]->port()).tables(0).rows(); }

  TempDir dir_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::unique_ptr<RowWriter> writer_;
};

TEST_F(DrainTest, AWriterGoesToTheOtherShardAndLosesNothing) {
  StartShard();
  StartShard();
  StartWriter();
  AppendRows(105);
  DrainUntilDone(0);
  const uint64_t rows = RowsAt(0);
  AppendRows(100);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(RowsAt(0), rows);
  EXPECT_EQ(RowsAt(0) + RowsAt(1), 205);
  servers_[0]->Stop(absl::Seconds(10));
  AppendRows(100);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  const RowWriterStats stats = writer_->stats();
  EXPECT_EQ(stats.moves, 1);
  EXPECT_EQ(stats.rows_acked, 305);
  EXPECT_EQ(stats.rows_dropped, 0);
}

TEST_F(DrainTest, AWriterWithNowhereToGoWaitsUntilItIsUndone) {
  StartShard();
  StartWriter();
  AppendRows(25);
  DrainUntilDone(0);
  EXPECT_EQ(RowsAt(0), 25);
  EXPECT_TRUE(Describe(servers_[0]->port()).draining());
  absl::Notification returned;
  std::thread pending([&] {
    EXPECT_TRUE(Append().ok());
    returned.Notify();
  });
  EXPECT_FALSE(returned.WaitForNotificationWithTimeout(kAWhile));
  Drain(0, /*undo=*/true);
  pending.join();
  AppendRows(10);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(RowsAt(0), 36);
  EXPECT_EQ(writer_->stats().reconnects, 0);
  EXPECT_FALSE(Describe(servers_[0]->port()).draining());
}

TEST_F(DrainTest, AWriterThatComesLaterIsTurnedAwayToo) {
  StartShard();
  StartShard();
  Drain(0);
  StartWriter();
  AppendRows(50);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(RowsAt(1), 50);
  // Without a row a table has no log.
  EXPECT_EQ(RowsAt(0), 0);
}

TEST_F(DrainTest, WhatAWriterHasUnderWayIsAckedWhateverTheLimiterSays) {
  StartShard({.min_size = 1, .samples_per_insert = 1, .slack = 20});
  TestWriter writer(servers_[0]->port());
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(7, 0, 40));
  ASSERT_TRUE(writer.AwaitHeld(7, 40));
  // Too many: not read while the limiter holds the writer back.
  ASSERT_TRUE(writer.WriteRows(7, 40, 40));
  EXPECT_EQ(Drain(0).writers_to_drain(), 1);
  ASSERT_TRUE(writer.AwaitHeld(7, 80));
  EXPECT_EQ(Drain(0).writers_to_drain(), 1);  // it has not said that this is all
  proto::AppendRequest drained;
  drained.set_drained(true);
  ASSERT_TRUE(writer.Write(drained));
  DrainUntilDone(0);
  EXPECT_TRUE(writer.Finish().ok());
}

TEST_F(DrainTest, EveryCallIsDescribed) {
  StartShard();
  StartWriter();
  AppendRows(30);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  TestSampler sampler(servers_[0]->port());
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(5, 60000));
  proto::SampleReply sample;
  ASSERT_TRUE(sampler.Read(&sample));
  const proto::DescribeReply reply = DescribeCalls(0);
  ASSERT_EQ(reply.calls_size(), 2);
  const bool append_first = reply.calls(0).method() == "Append";
  const proto::CallDescription& append = reply.calls(append_first ? 0 : 1);
  const proto::CallDescription& sampling = reply.calls(append_first ? 1 : 0);
  EXPECT_EQ(append.method(), "Append");
  EXPECT_EQ(append.table(), "replay");
  EXPECT_EQ(append.rows(), 30);
  EXPECT_EQ(append.streams(), 1);
  EXPECT_THAT(append.client(), HasSubstr("drain_test@"));
  EXPECT_THAT(append.client(), HasSubstr("/" + std::to_string(getpid())));
  EXPECT_THAT(append.address(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(append.role(), "");
  EXPECT_EQ(sampling.method(), "Sample");
  EXPECT_EQ(sampling.windows(), 5);
  EXPECT_EQ(sampling.client(), "");  // a client that says nothing of itself
  EXPECT_EQ(Describe(servers_[0]->port()).calls_size(), 0);
}

}  // namespace
}  // namespace troupe
