// A writer and the rate limiter of a real server in this process.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "actor/row_writer.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

// What must not happen is given this long to happen.
constexpr absl::Duration kAWhile = absl::Milliseconds(100);
// One sample an insert: the 53rd row, which ends the 52nd window, is one too many.
constexpr RateLimit kLimiter = {.min_size = 1, .samples_per_insert = 1, .slack = 50};

absl::Time Soon() { return absl::Now() + absl::Minutes(2); }

class HeldBackTest : public ::testing::Test {
 protected:
  HeldBackTest() {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 1024;
    table.rate_limit = kLimiter;
    ShardOptions options;
    options.data_dir = dir_.File("data");
    options.tables.push_back(table);
    auto server = Server::Start("127.0.0.1:0", options);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  int port() const { return server_->port(); }

  void Sample(uint32_t num_windows) {
    TestSampler sampler(port());
    ASSERT_TRUE(sampler.Open());
    ASSERT_TRUE(sampler.Ask(num_windows, 60000));
    proto::SampleReply reply;
    ASSERT_TRUE(sampler.Read(&reply));
    EXPECT_EQ(reply.row_ids_size(), num_windows);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
};

TEST_F(HeldBackTest, RepliesSayWhenTheLimiterHoldsAndWhenSamplingFrees) {
  auto stub = proto::Replay::NewStub(Connect(port()));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(Soon()));
  auto call = stub->Append(&context);
  ASSERT_TRUE(call->Write(TestWriter::OpenRequest()));
  proto::AppendReply reply;
  ASSERT_TRUE(call->Read(&reply));
  EXPECT_FALSE(reply.held_back());

  const auto append = [&](uint64_t first, uint64_t count) {
    proto::AppendRequest request;
    proto::RowRun* run = request.add_runs();
    run->set_stream(7);
    run->set_first_row(first);
    run->set_rows(Rows(7, first, count));
    return call->Write(request) && call->Read(&reply);
  };
  ASSERT_TRUE(append(0, 52));
  EXPECT_FALSE(reply.held_back());
  ASSERT_TRUE(append(52, 10));
  EXPECT_TRUE(reply.held_back());
  ASSERT_EQ(reply.acks_size(), 1);
  EXPECT_EQ(reply.acks(0).held_rows(), 62);

  Sample(32);
  ASSERT_TRUE(call->Read(&reply));
  EXPECT_FALSE(reply.held_back());
  EXPECT_EQ(reply.acks_size(), 0);
  call->WritesDone();
  EXPECT_FALSE(call->Read(&reply));
  EXPECT_TRUE(call->Finish().ok());
}

TEST_F(HeldBackTest, AWriterMakesNoRowsUntilSamplingFreesIt) {
  RowWriterOptions options;
  options.shards = {"127.0.0.1:" + std::to_string(port())};
  options.run = "run";
  options.table = "replay";
  options.message_bytes = 10 * TestLayout().stride_bytes();
  options.max_delay = absl::Hours(1);  // once it is connected, every message has ten
  auto writer = *RowWriter::Create(options, TestLayout());
  ASSERT_TRUE(writer->WaitConnected(Soon()).ok());
  const auto append = [&] { return writer->Append(0, [](absl::Span<char>) {}); };
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(append().ok());
  // With the ack of the last of them the writer hears that it is held back.
  while (writer->stats().rows_acked < 60) std::this_thread::yield();
  absl::Notification returned;
  std::thread pending([&] {
    EXPECT_TRUE(append().ok());
    returned.Notify();
  });
  EXPECT_FALSE(returned.WaitForNotificationWithTimeout(kAWhile));
  EXPECT_EQ(writer->stats().rows_appended, 60);
  Sample(32);
  pending.join();
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  EXPECT_EQ(writer->stats().rows_dropped, 0);
  EXPECT_EQ(Describe(port()).tables(0).rows(), 61);
}

}  // namespace
}  // namespace troupe
