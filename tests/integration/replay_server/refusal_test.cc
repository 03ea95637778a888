// What a server refuses, and how it says so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class RefusalTest : public ::testing::Test {
 protected:
  RefusalTest() {
    options_.data_dir = dir_.File("data");
    options_.tables.push_back({.name = "replay", .path = "", .capacity_rows = 128});
    options_.max_streams = 3;
    Start();
  }

  void Start() {
    server_ = nullptr;
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }
  grpc::Status AppendWith(const proto::AppendRequest& first) {
    TestWriter writer(port());
    writer.Write(first);
    return writer.Finish();
  }
  // The run and the layout of the shard are fixed from here on.
  void Fill() {
    TestWriter writer(port());
    ASSERT_TRUE(writer.Open());
    ASSERT_TRUE(writer.WriteRows(1, 0, 10));
    ASSERT_TRUE(writer.Finish().ok());
  }

  TempDir dir_;
  ShardOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(RefusalTest, AnotherRunIsRefusedEvenAfterARestart) {
  Fill();
  for (int i = 0; i < 2; ++i) {
    proto::AppendRequest request = TestWriter::OpenRequest();
    request.mutable_open()->set_run("other");
    const grpc::Status status = AppendWith(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(), HasSubstr("holds run 'run', not 'other'"));
    TestSampler sampler(port());
    sampler.Open("other");
    EXPECT_EQ(sampler.Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    Start();
  }
}

TEST_F(RefusalTest, AnotherLayoutIsRefusedNamingTheColumn) {
  Fill();
  proto::AppendRequest request = TestWriter::OpenRequest();
  request.mutable_open()->mutable_layout()->mutable_columns(1)->set_dtype(proto::FLOAT64);
  const grpc::Status status = AppendWith(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("'row' FLOAT64"));
}

TEST_F(RefusalTest, AMalformedLayoutIsRefused) {
  proto::AppendRequest request = TestWriter::OpenRequest();
  request.mutable_open()->mutable_layout()->mutable_columns(0)->add_shape(0);
  EXPECT_EQ(AppendWith(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RefusalTest, AnUnknownTableIsRefusedWithTheKnownOnes) {
  proto::AppendRequest request = TestWriter::OpenRequest();
  request.mutable_open()->set_table("repaly");
  const grpc::Status status = AppendWith(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("there are: 'replay'"));
  TestSampler sampler(port());
  sampler.Open("run", "repaly");
  EXPECT_EQ(sampler.Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RefusalTest, RowsBeforeTheOpenRequestAreRefused) {
  proto::AppendRequest request;
  request.add_runs()->set_rows("x");
  EXPECT_EQ(AppendWith(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RefusalTest, OpeningTwiceIsRefused) {
  TestWriter writer(port());
  ASSERT_TRUE(writer.Open());
  ASSERT_TRUE(writer.Write(TestWriter::OpenRequest()));
  EXPECT_EQ(writer.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RefusalTest, AMessageOverTheCapIsRefused) {
  options_.max_message_bytes = 65536;
  Start();
  TestWriter writer(port());
  ASSERT_TRUE(writer.Open());
  writer.WriteRows(1, 0, 2 * (65536 + 65536) / kTestStride);
  EXPECT_EQ(writer.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(RefusalTest, OneCallTooManyIsRefusedAndOneThatEndsMakesRoom) {
  std::vector<std::unique_ptr<TestWriter>> writers;
  for (int i = 0; i < 3; ++i) {
    writers.push_back(std::make_unique<TestWriter>(port()));
    ASSERT_TRUE(writers.back()->Open());
  }
  TestWriter refused(port());
  const grpc::Status status = refused.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("max_streams is 3"));
  ASSERT_TRUE(writers.back()->Finish().ok());
  while (Describe(port()).tables(0).append_calls() == 3) {
  }
  TestWriter admitted(port());
  EXPECT_TRUE(admitted.Open());
}

TEST_F(RefusalTest, SampleRequestsOutOfRangeAreRefused) {
  for (const auto& [num_windows, timeout_ms] :
       std::vector<std::pair<uint32_t, uint32_t>>{{1, 60001}, {1u << 30, 0}}) {
    TestSampler sampler(port());
    ASSERT_TRUE(sampler.Open());
    ASSERT_TRUE(sampler.Ask(num_windows, timeout_ms));
    EXPECT_EQ(sampler.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(RefusalTest, MoreDrawsThanAnyLearnerMakesAreRefused) {
  TestSampler sampler(port());
  ASSERT_TRUE(sampler.Open());
  proto::SampleRequest request;
  request.set_sampled_at_least((uint64_t{1} << 56) + 1);
  ASSERT_TRUE(sampler.Ask(request));
  EXPECT_EQ(sampler.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RefusalTest, ALogThatDoesNotFitOnTheDiskIsRefusedWithTheNumbers) {
  options_.tables[0].capacity_rows = 100'000'000'000;
  Start();
  const grpc::Status status = AppendWith(TestWriter::OpenRequest());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("replay.rows"));
  EXPECT_THAT(status.error_message(), HasSubstr("bytes are free"));
}

TEST_F(RefusalTest, ASecondServerOnTheSameDirectoryIsRefused) {
  const absl::Status status = Server::Start("127.0.0.1:0", options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr(options_.data_dir));
}

TEST_F(RefusalTest, ASecondServerOnTheSamePortIsRefused) {
  ShardOptions other = options_;
  other.data_dir = dir_.File("other");
  const std::string address = "127.0.0.1:" + std::to_string(port());
  const absl::Status status = Server::Start(address, other).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(address));
}

TEST_F(RefusalTest, AnotherCapacityIsRefusedAtStart) {
  Fill();
  server_ = nullptr;
  options_.tables[0].capacity_rows = 256;
  const absl::Status status = Server::Start("127.0.0.1:0", options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("made for 128 rows"));
}

TEST_F(RefusalTest, HealthIsAskedByARealCall) {
  const std::string address = "127.0.0.1:" + std::to_string(port());
  EXPECT_TRUE(CheckHealth(address, absl::Seconds(30), *Credentials::Plaintext()).ok());
  server_ = nullptr;
  EXPECT_EQ(CheckHealth(address, absl::Seconds(30), *Credentials::Plaintext()).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(RefusalTest, AMessageLargerThanItsCallDeclaredIsRefused) {
  TestWriter writer(port());
  proto::AppendRequest open = TestWriter::OpenRequest();
  open.mutable_open()->set_max_message_bytes(5 * kTestStride);
  writer.Write(open);
  ASSERT_TRUE(writer.Read());
  writer.WriteRows(1, 0, 10);
  const grpc::Status status = writer.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("max_message_bytes 160"));
}

TEST_F(RefusalTest, AWriterThatDoesNotFitTheBudgetIsRefusedUntilAnotherIsGone) {
  options_.message_budget_bytes = 768 << 10;  // two calls that declare nothing
  Start();
  auto first = std::make_unique<TestWriter>(port());
  TestWriter second(port());
  ASSERT_TRUE(first->Open());
  ASSERT_TRUE(second.Open());
  const grpc::Status status = AppendWith(TestWriter::OpenRequest());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("786432 of replay_server.message_budget_bytes"));
  EXPECT_TRUE(first->Finish().ok());
  grpc::Status again;
  do {  // the writer's end of a call comes a moment before the shard's
    TestWriter third(port());
    third.Open();
    again = third.Finish();
  } while (again.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(again.ok()) << again.error_message();
}

}  // namespace
}  // namespace troupe
