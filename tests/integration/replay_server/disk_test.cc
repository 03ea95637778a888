// Appending with ack = disk.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "replay_server/server.h"
#include "tests/integration/replay_server/shard_client.h"

namespace troupe {
namespace {

class DiskTest : public ::testing::Test {
 protected:
  DiskTest() {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 64 * 1024;
    options_.data_dir = dir_.File("data");
    options_.tables.push_back(table);
    options_.ack_disk = true;
    options_.disk_sync.observe = [this](absl::Duration) { syncs_++; };
    options_.disk_sync.fail = [](const absl::Status& status) { FAIL() << status; };
    Start();
  }

  void Start() {
    server_ = nullptr;
    auto server = Server::Start("127.0.0.1:0", options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }

  TempDir dir_;
  std::atomic<int> syncs_{0};
  ShardOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(DiskTest, RowsAreAckedAfterASyncAndAreThereAfterARestart) {
  EXPECT_EQ(Describe(port()).ack_level(), "disk");
  for (uint64_t life = 0; life < 3; ++life) {
    TestWriter writer(port());
    ASSERT_TRUE(writer.Open({7}));
    EXPECT_EQ(writer.held(7), life * 100);
    EXPECT_GT(writer.window_bytes(), 0);
    const int before = syncs_;
    ASSERT_TRUE(writer.WriteRows(7, life * 100, 100));
    ASSERT_TRUE(writer.AwaitHeld(7, life * 100 + 100));
    EXPECT_GT(syncs_, before);
    EXPECT_TRUE(writer.Finish().ok());
    Start();
  }
}

TEST_F(DiskTest, AWriterThatHasSaidAllStillGetsEveryAck) {
  TestWriter writer(port());
  ASSERT_TRUE(writer.Write(TestWriter::OpenRequest({7})));
  for (uint64_t first = 0; first < 5000; first += 50) ASSERT_TRUE(writer.WriteRows(7, first, 50));
  EXPECT_TRUE(writer.Finish().ok());
  EXPECT_EQ(writer.held(7), 5000);
}

TEST_F(DiskTest, ManyWritersShareSyncs) {
  constexpr uint64_t kWriters = 8;
  constexpr uint64_t kMessages = 200;
  std::vector<std::thread> threads;
  for (uint64_t stream = 1; stream <= kWriters; ++stream) {
    threads.emplace_back([this, stream] {
      TestWriter writer(port());
      ASSERT_TRUE(writer.Open({stream}));
      for (uint64_t i = 0; i < kMessages; ++i) ASSERT_TRUE(writer.WriteRows(stream, i * 10, 10));
      ASSERT_TRUE(writer.AwaitHeld(stream, kMessages * 10));
      EXPECT_TRUE(writer.Finish().ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(syncs_, static_cast<int>(kWriters * kMessages));
  EXPECT_EQ(Describe(port()).tables(0).rows(), kWriters * kMessages * 10);
}

TEST_F(DiskTest, AWriterWithMoreUnackedBytesThanItsWindowIsReadFromAgainAfterTheSync) {
  options_.append_window_bytes = 1;  // each message is more than that
  Start();
  TestWriter writer(port());
  ASSERT_TRUE(writer.Open({7}));
  for (uint64_t first = 0; first < 1000; first += 100) ASSERT_TRUE(writer.WriteRows(7, first, 100));
  EXPECT_TRUE(writer.AwaitHeld(7, 1000));
  EXPECT_GE(syncs_, 10);
}

TEST_F(DiskTest, ABadMessageEndsTheCallAfterTheAcksOfTheGoodOnes) {
  TestWriter writer(port());
  ASSERT_TRUE(writer.Open({7}));
  ASSERT_TRUE(writer.WriteRows(7, 0, 10));
  ASSERT_TRUE(writer.WriteRows(7, 20, 10));  // a gap
  EXPECT_EQ(writer.Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(writer.held(7), 10);
}

TEST_F(DiskTest, ASnapshotThatCannotBeWrittenIsRelayedFromMemory) {
  std::filesystem::create_directory(dir_.File("data/snapshot.tmp"));  // in the way
  uint64_t held = 0;
  EXPECT_TRUE(Publish(port(), TestSnapshot(5, "image"), &held).ok());
  EXPECT_EQ(held, 5);
  TestSubscriber subscriber(port());
  EXPECT_EQ(subscriber.Next().image, "image");
  EXPECT_EQ(server_->shard().snapshot_write_failures(), 1);
  std::filesystem::remove(dir_.File("data/snapshot.tmp"));
  EXPECT_TRUE(Publish(port(), TestSnapshot(6, "newer"), &held).ok());
  EXPECT_EQ(server_->shard().snapshot_write_failures(), 1);
  Start();
  EXPECT_EQ(server_->shard().newest_version(), 6);
}

}  // namespace
}  // namespace troupe
