// Rows in and windows out, through a real server in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class AppendSampleTest : public ::testing::Test {
 protected:
  AppendSampleTest() {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 1024;
    options_.data_dir = dir_.File("data");
    options_.tables.push_back(table);
  }

  TableOptions& table() { return options_.tables[0]; }
  int Start() {
    server_ = nullptr;  // frees the directory
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    return server_->port();
  }
  // Waits, by asking, until the writers or samplers are said to wait.
  std::string AwaitWaiting(int port, bool writers) {
    for (;;) {
      const proto::TableDescription found = Describe(port).tables(0);
      const std::string why = writers ? found.writers_wait_for() : found.samplers_wait_for();
      if (!why.empty()) return why;
    }
  }

  TempDir dir_;
  ShardOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(AppendSampleTest, TheOpenReplySaysWhatIsHeld) {
  const int port = Start();
  TestWriter first(port);
  ASSERT_TRUE(first.Open({7}));
  EXPECT_EQ(first.held(7), 0);
  EXPECT_EQ(first.window_bytes(), options_.append_window_bytes);
  ASSERT_TRUE(first.WriteRows(7, 0, 100));
  ASSERT_TRUE(first.AwaitHeld(7, 100));
  EXPECT_TRUE(first.Finish().ok());

  TestWriter second(port);
  ASSERT_TRUE(second.Open({7, 8}));
  EXPECT_EQ(second.held(7), 100);
  EXPECT_EQ(second.held(8), 0);
}

TEST_F(AppendSampleTest, ResentRowsAreIgnoredAndCounted) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(7, 0, 10));
  ASSERT_TRUE(writer.WriteRows(7, 5, 10));
  ASSERT_TRUE(writer.WriteRows(7, 0, 15));
  ASSERT_TRUE(writer.AwaitHeld(7, 15));
  EXPECT_TRUE(writer.Finish().ok());
  const proto::TableDescription found = Describe(port).tables(0);
  EXPECT_EQ(found.rows(), 15);
  EXPECT_EQ(found.rows_appended(), 15);
  EXPECT_EQ(found.rows_duplicate(), 5 + 15);
  EXPECT_EQ(found.counts().inserted(), 14);
}

TEST_F(AppendSampleTest, AGapIsRefusedWithTheNumbers) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(7, 0, 10));
  ASSERT_TRUE(writer.WriteRows(7, 11, 1));
  const grpc::Status status = writer.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("10 rows are held, so row 11 cannot be next"));
  EXPECT_EQ(writer.held(7), 10);  // what came before the gap is acked first
}

TEST_F(AppendSampleTest, AMessageWithOneBadRunStoresNothing) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  proto::AppendRequest request;
  for (const uint64_t stream : {1, 2}) {
    proto::RowRun* run = request.add_runs();
    run->set_stream(stream);
    run->set_rows(Rows(stream, 0, 4));
  }
  request.mutable_runs(1)->mutable_rows()->pop_back();
  ASSERT_TRUE(writer.Write(request));
  EXPECT_EQ(writer.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Describe(port).tables(0).rows(), 0);
}

TEST_F(AppendSampleTest, SampledWindowsAreConsecutiveRows) {
  table().window.length = 3;
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  for (const uint64_t stream : {1, 2}) {
    ASSERT_TRUE(writer.WriteRows(stream, 0, 200));
    ASSERT_TRUE(writer.AwaitHeld(stream, 200));
  }
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(256, 60000));
  proto::SampleReply reply;
  ASSERT_TRUE(sampler.Read(&reply));
  ASSERT_EQ(reply.row_ids_size(), 256);
  ASSERT_EQ(reply.probabilities_size(), 256);
  ASSERT_EQ(reply.windows().size(), 256 * 3 * kTestStride);
  EXPECT_EQ(reply.mass(), 2 * 198);
  EXPECT_EQ(reply.counts().env_steps(), 400);
  EXPECT_EQ(reply.counts().inserted(), 2 * 198);
  EXPECT_EQ(reply.counts().sampled(), 256);
  for (int i = 0; i < 256; ++i) {
    const TestRow first = RowAt(reply.windows().data(), i * 3);
    EXPECT_FLOAT_EQ(reply.probabilities(i), 1.0f / 396);
    for (int k = 1; k < 3; ++k) {
      const TestRow row = RowAt(reply.windows().data(), i * 3 + k);
      EXPECT_EQ(row.stream, first.stream);
      EXPECT_EQ(row.row, first.row + k);
    }
  }
  EXPECT_TRUE(sampler.Finish().ok());
}

TEST_F(AppendSampleTest, RepliesComeInTheOrderOfRequests) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 50));
  ASSERT_TRUE(writer.AwaitHeld(1, 50));
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  for (uint32_t n = 1; n <= 40; ++n) ASSERT_TRUE(sampler.Ask(n, 60000));
  proto::SampleReply reply;
  for (int n = 1; n <= 40; ++n) {
    ASSERT_TRUE(sampler.Read(&reply));
    EXPECT_EQ(reply.row_ids_size(), n);
  }
  EXPECT_TRUE(sampler.Finish().ok());
}

TEST_F(AppendSampleTest, ASampleWaitsUntilEnoughIsInserted) {
  table().rate_limit.min_size = 30;
  const int port = Start();
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(4, 60000));
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 20));
  EXPECT_THAT(AwaitWaiting(port, /*writers=*/false), HasSubstr("1 sampling"));
  ASSERT_TRUE(writer.WriteRows(1, 20, 11));
  proto::SampleReply reply;
  ASSERT_TRUE(sampler.Read(&reply));
  EXPECT_EQ(reply.row_ids_size(), 4);
  EXPECT_EQ(reply.counts().inserted(), 30);
}

TEST_F(AppendSampleTest, ATimeoutIsAnsweredWithCountsOnly) {
  table().rate_limit.min_size = 30;
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 20));
  ASSERT_TRUE(writer.AwaitHeld(1, 20));
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  for (const uint32_t timeout_ms : {0, 5}) {
    ASSERT_TRUE(sampler.Ask(4, timeout_ms));
    proto::SampleReply reply;
    ASSERT_TRUE(sampler.Read(&reply));
    EXPECT_EQ(reply.windows(), "");
    EXPECT_EQ(reply.counts().inserted(), 19);
    EXPECT_EQ(reply.mass(), 19);
  }
  EXPECT_EQ(Describe(port).tables(0).samplers_wait_for(), "");
}

TEST_F(AppendSampleTest, ALongPollEndsWithTheNextInsert) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 20));
  ASSERT_TRUE(writer.AwaitHeld(1, 20));
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(0, 60000, /*inserted_above=*/19, 0, 0, /*lacks_windows=*/30));
  EXPECT_THAT(AwaitWaiting(port, /*writers=*/false), HasSubstr("more than 19 windows"));
  ASSERT_TRUE(writer.WriteRows(1, 20, 1));
  proto::SampleReply reply;
  ASSERT_TRUE(sampler.Read(&reply));
  EXPECT_EQ(reply.counts().inserted(), 20);
  EXPECT_EQ(reply.row_ids_size(), 0);
}

TEST_F(AppendSampleTest, AHeldBackWriterIsFreedBySampling) {
  table().rate_limit = {.min_size = 1, .samples_per_insert = 1, .slack = 50};
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 60));
  ASSERT_TRUE(writer.AwaitHeld(1, 60));
  ASSERT_TRUE(writer.WriteRows(1, 60, 10));
  EXPECT_THAT(AwaitWaiting(port, /*writers=*/true), HasSubstr("8 more samples free it"));
  EXPECT_EQ(Describe(port).tables(0).rows(), 60);
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(32, 60000));
  ASSERT_TRUE(writer.AwaitHeld(1, 70));
  EXPECT_EQ(Describe(port).tables(0).writers_wait_for(), "");
}

TEST_F(AppendSampleTest, AHeldBackWriterIsFreedByTheOtherShardsSamples) {
  table().rate_limit = {.min_size = 1, .samples_per_insert = 1, .slack = 50};
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 60));
  ASSERT_TRUE(writer.WriteRows(1, 60, 10));
  AwaitWaiting(port, /*writers=*/true);
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(0, 0, 0, /*others_inserted=*/0, /*others_sampled=*/20));
  EXPECT_TRUE(writer.AwaitHeld(1, 70));
}

TEST_F(AppendSampleTest, AFullQueueHoldsWritersUntilItIsSampled) {
  table().selector = proto::FIFO;
  table().max_times_sampled = 1;
  table().window = {.length = 5, .stride = 4, .start_at_final_rows = true};
  table().rate_limit.queue_length = 10;
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 41));  // ten windows
  ASSERT_TRUE(writer.WriteRows(1, 41, 4));
  EXPECT_THAT(AwaitWaiting(port, /*writers=*/true), HasSubstr("1 more sampled windows free it"));
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(8, 60000));
  proto::SampleReply reply;
  ASSERT_TRUE(sampler.Read(&reply));
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(RowAt(reply.windows().data(), i * 5).row, i * 4);  // the oldest first
  }
  ASSERT_TRUE(writer.AwaitHeld(1, 45));
  ASSERT_TRUE(sampler.Ask(3, 60000));
  ASSERT_TRUE(sampler.Read(&reply));
  EXPECT_EQ(RowAt(reply.windows().data(), 0).row, 32);  // none twice
}

TEST_F(AppendSampleTest, ACancelledWriterNoLongerWaits) {
  table().rate_limit = {.min_size = 1, .samples_per_insert = 1, .slack = 50};
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.WriteRows(1, 0, 60));
  AwaitWaiting(port, /*writers=*/true);
  writer.Cancel();
  while (Describe(port).tables(0).append_calls() > 0) {
  }
  EXPECT_EQ(Describe(port).tables(0).writers_wait_for(), "");
}

TEST_F(AppendSampleTest, ARestartKeepsRowsAndCounts) {
  int port = Start();
  {
    TestWriter writer(port);
    ASSERT_TRUE(writer.Open());
    ASSERT_TRUE(writer.WriteRows(1, 0, 100));
    ASSERT_TRUE(writer.AwaitHeld(1, 100));
    TestSampler sampler(port);
    ASSERT_TRUE(sampler.Open());
    ASSERT_TRUE(sampler.Ask(10, 60000));
    proto::SampleReply reply;
    ASSERT_TRUE(sampler.Read(&reply));
  }
  port = Start();
  const proto::TableDescription found = Describe(port).tables(0);
  EXPECT_EQ(found.rows(), 100);
  EXPECT_EQ(found.mass(), 99);
  EXPECT_EQ(found.counts().env_steps(), 100);
  EXPECT_EQ(found.counts().inserted(), 99);
  EXPECT_EQ(found.counts().sampled(), 10);
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open({1}));
  EXPECT_EQ(writer.held(1), 100);
}

TEST_F(AppendSampleTest, DrainingEndsCallsAndTellsThemWhy) {
  const int port = Start();
  TestWriter writer(port);
  ASSERT_TRUE(writer.Open());
  TestSampler sampler(port);
  ASSERT_TRUE(sampler.Open());
  ASSERT_TRUE(sampler.Ask(1, 60000));
  AwaitWaiting(port, /*writers=*/false);
  server_->Stop(absl::Seconds(30));
  const grpc::Status status = sampler.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
  EXPECT_EQ(writer.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace troupe
