// Snapshots from the learner through a real server to actors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>

#include "common/version.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

uint64_t Version(uint64_t epoch, uint64_t counter) {
  return PolicyVersion{epoch, counter}.Packed();
}

class RelayTest : public ::testing::Test {
 protected:
  RelayTest() {
    options_.data_dir = dir_.File("data");
    options_.tables.push_back({.name = "replay", .path = "", .capacity_rows = 128});
    Start();
  }

  void Start() {
    server_ = nullptr;  // frees the directory
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }

  TempDir dir_;
  ShardOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(RelayTest, ASubscriberGetsTheNewestSnapshotAndThenEachNewOne) {
  uint64_t held = 0;
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 1), "one"), &held).ok());
  EXPECT_EQ(held, Version(1, 1));
  TestSubscriber subscriber(port());
  EXPECT_EQ(subscriber.Next().image, "one");
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 2), "two")).ok());
  const Snapshot second = subscriber.Next();
  EXPECT_EQ(second.image, "two");
  EXPECT_EQ(second.version, Version(1, 2));
}

TEST_F(RelayTest, ASubscriberWaitsForTheFirstSnapshotNewerThanItsOwn) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 1), "one")).ok());
  TestSubscriber subscriber(port(), Version(1, 1));
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 2), "two")).ok());
  EXPECT_EQ(subscriber.Next().version, Version(1, 2));
}

TEST_F(RelayTest, ALargeSnapshotTravelsInChunks) {
  std::string image(5'000'001, 'x');
  for (size_t i = 0; i < image.size(); i += 1000) image[i] = static_cast<char>(i / 1000);
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 1), image), nullptr, 300'000).ok());
  TestSubscriber subscriber(port());
  EXPECT_EQ(subscriber.Next().image, image);
}

TEST_F(RelayTest, ASlowSubscriberSkipsToTheNewest) {
  const std::string large(64 << 20, 'x');  // more than flow control lets out unread
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 1), large)).ok());
  TestSubscriber subscriber(port());
  EXPECT_EQ(subscriber.Next().version, Version(1, 1));
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 2), large)).ok());
  for (uint64_t counter = 3; counter <= 20; ++counter) {
    ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, counter), "small")).ok());
  }
  uint64_t received = 0;
  for (uint64_t version = 0; version < Version(1, 20); ++received) {
    const Snapshot snapshot = subscriber.Next();
    ASSERT_GT(snapshot.version, version);
    version = snapshot.version;
  }
  EXPECT_LE(received, 2);  // what was begun, and the newest
}

TEST_F(RelayTest, AnOlderEpochIsFencedOff) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(2, 1), "new learner")).ok());
  const grpc::Status status = Publish(port(), TestSnapshot(Version(1, 99), "old learner"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("epoch 2"));
  EXPECT_EQ(Describe(port()).snapshot_version(), Version(2, 1));
}

TEST_F(RelayTest, AnOlderCounterOfTheSameEpochIsAnsweredWithWhatIsHeld) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 5), "five")).ok());
  uint64_t held = 0;
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 4), "four"), &held).ok());
  EXPECT_EQ(held, Version(1, 5));
}

TEST_F(RelayTest, ADigestThatDoesNotMatchIsRefused) {
  Snapshot snapshot = TestSnapshot(Version(1, 1), "image");
  snapshot.image[0] ^= 1;
  EXPECT_EQ(Publish(port(), snapshot).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Describe(port()).snapshot_version(), 0);
}

TEST_F(RelayTest, ASnapshotCutShortIsRefused) {
  grpc::ClientContext context;
  proto::PublishReply reply;
  auto stub = proto::Weights::NewStub(Connect(port()));
  auto call = stub->Publish(&context, &reply);
  proto::SnapshotChunk chunk;
  chunk.mutable_header()->set_run("run");
  chunk.mutable_header()->set_version(1);
  chunk.mutable_header()->set_size_bytes(10);
  chunk.set_data("12345");
  ASSERT_TRUE(call->Write(chunk));
  call->WritesDone();
  const grpc::Status status = call->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("after 5 of 10 bytes"));
}

TEST_F(RelayTest, ASnapshotOfAnotherRunIsRefused) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(1, 1), "image")).ok());
  const grpc::Status status = Publish(port(), TestSnapshot(Version(1, 2), "image", "other"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("holds run 'run', not 'other'"));
  TestSubscriber subscriber(port(), 0, "other");
  EXPECT_EQ(subscriber.Next().version, 0);
  EXPECT_EQ(subscriber.Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(RelayTest, ASnapshotTooLargeIsRefusedBeforeItIsSent) {
  options_.max_snapshot_bytes = 1024;
  Start();
  EXPECT_EQ(Publish(port(), TestSnapshot(1, std::string(1025, 'x'))).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(RelayTest, TheSnapshotAndItsEpochOutliveTheServer) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(3, 7), "kept")).ok());
  Start();
  EXPECT_EQ(Describe(port()).max_epoch(), 3);
  EXPECT_EQ(Describe(port()).run(), "run");
  EXPECT_EQ(Publish(port(), TestSnapshot(Version(2, 9), "old")).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  TestSubscriber subscriber(port());
  EXPECT_EQ(subscriber.Next().image, "kept");
}

TEST_F(RelayTest, ADamagedSnapshotFileIsDropped) {
  ASSERT_TRUE(Publish(port(), TestSnapshot(Version(3, 7), "kept")).ok());
  server_ = nullptr;
  std::fstream file(options_.data_dir + "/snapshot", std::ios::in | std::ios::out);
  file.seekp(-1, std::ios::end);
  file.put('x');
  file.close();
  Start();
  EXPECT_EQ(Describe(port()).snapshot_version(), 0);
}

}  // namespace
}  // namespace troupe
