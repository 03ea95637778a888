// Followers of a real server: writers beside them, breaks, kill -9.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/client_context.h"
#include "replay_server/server.h"
#include "tests/integration/replay_server/server_process.h"
#include "tests/integration/replay_server/shard_client.h"
#include "tests/unit/replay_server/followed_rows.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

// One Follow call; one thread.
class TestFollower final {
 public:
  TestFollower(int port, const proto::FollowRequest& request)
      : stub_(proto::Replay::NewStub(Connect(port))) {
    call_ = stub_->Follow(&context_, request);
  }
  ~TestFollower() { context_.TryCancel(); }

  // False: the call has ended.
  bool Read() { return call_->Read(&reply_); }
  const proto::FollowReply& reply() const { return reply_; }
  bool has_everything() const { return reply_.runs().empty(); }
  grpc::Status Finish() {
    while (Read()) {
    }
    return call_->Finish();
  }

 private:
  std::unique_ptr<proto::Replay::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<proto::FollowReply>> call_;
  proto::FollowReply reply_;
};

class FollowCallTest : public ::testing::Test {
 protected:
  FollowCallTest() {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 4096;
    options_.data_dir = dir_.File("data");
    options_.tables.push_back(table);
  }

  void Start() {
    server_ = nullptr;  // frees the directory
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start("127.0.0.1:0", options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }
  // Appends `count` rows to a stream that holds `first`, and waits for the ack.
  void Write(uint64_t stream, uint64_t first, uint64_t count) {
    TestWriter writer(port());
    ASSERT_TRUE(writer.Open());
    for (uint64_t done = 0; done < count;) {
      const uint64_t part = std::min<uint64_t>(count - done, 1000);
      ASSERT_TRUE(writer.WriteRows(stream, first + done, part));
      done += part;
      ASSERT_TRUE(writer.AwaitHeld(stream, first + done));
    }
  }

  TempDir dir_;
  ShardOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(FollowCallTest, AnEmptyReplySaysThatTheFollowerHasEverything) {
  Start();
  TestFollower follower(port(), FollowedRowsModel().Position());
  ASSERT_TRUE(follower.Read());
  EXPECT_TRUE(follower.has_everything());
  Write(1, 0, 100);
  FollowedRowsModel model;
  do {
    ASSERT_TRUE(follower.Read());
    model.Add(follower.reply());
  } while (!follower.has_everything());
  EXPECT_EQ(model.rows(), 100);
  EXPECT_EQ(follower.reply().counts().env_steps(), 100);
  EXPECT_EQ(Describe(port()).tables(0).follow_calls(), 1);
}

TEST_F(FollowCallTest, EveryRowComesOnceAndInOrderWhileWritersAppendAndTheRingTurns) {
  Start();
  constexpr uint64_t kRows = 40'000;
  std::vector<std::thread> writers;
  for (uint64_t stream = 1; stream <= 3; ++stream) {
    writers.emplace_back([this, stream] { Write(stream, 0, kRows); });
  }
  FollowedRowsModel model;
  TestFollower follower(port(), model.Position());
  do {
    ASSERT_TRUE(follower.Read());
    model.Add(follower.reply());
  } while (model.rows() + follower.reply().rows_missed() < 3 * kRows);
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(model.rows() + follower.reply().rows_missed(), 3 * kRows);
}

TEST_F(FollowCallTest, AFollowerThatDoesNotReadMissesRowsAndHoldsUpNoWriter) {
  Start();
  FollowedRowsModel model;
  TestFollower follower(port(), model.Position());
  ASSERT_TRUE(follower.Read());
  constexpr uint64_t kRows = 2'000'000;  // 64 MB: more than any buffer on the way takes
  Write(1, 0, kRows);
  do {
    ASSERT_TRUE(follower.Read());
    model.Add(follower.reply());
  } while (!follower.has_everything());
  EXPECT_GT(follower.reply().rows_missed(), 0);
  EXPECT_EQ(model.rows() + follower.reply().rows_missed(), kRows);
  EXPECT_EQ(model.next_row(1), kRows);
}

TEST_F(FollowCallTest, RefusalsSayWhy) {
  Start();
  Write(1, 0, 10);
  proto::FollowRequest request = FollowedRowsModel().Position();
  request.set_next_block(3);
  grpc::Status status = TestFollower(port(), request).Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("the newest here is 1"));

  request.add_partial()->set_block(~uint64_t{0});
  EXPECT_EQ(TestFollower(port(), request).Finish().error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  request = FollowedRowsModel().Position();
  request.set_table("other");
  EXPECT_EQ(TestFollower(port(), request).Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  request = FollowedRowsModel().Position();
  request.set_run("other");
  EXPECT_EQ(TestFollower(port(), request).Finish().error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Describe(port()).tables(0).follow_calls(), 0);
}

TEST_F(FollowCallTest, DrainingEndsFollowersAndTellsThemWhy) {
  Start();
  TestFollower follower(port(), FollowedRowsModel().Position());
  ASSERT_TRUE(follower.Read());
  server_->Stop(absl::Seconds(30));
  const grpc::Status status = follower.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
}

// The follower's calls break with the server, which is killed while rows come and go.
TEST(FollowCrashTest, AfterKillsOfTheShardNothingComesTwiceAndNothingIsLeftOut) {
  TempDir dir;
  FollowedRowsModel model;
  uint64_t held = 0;
  for (int life = 0; life < 6; ++life) {
    ServerProcess server({.data_dir = dir.File("data"), .capacity_rows = 4'000'000});
    ASSERT_NE(server.port(), 0);
    TestWriter writer(server.port());
    ASSERT_TRUE(writer.Open({1}));
    held = writer.held(1);
    std::thread sender([&writer, first = held]() mutable {
      for (; writer.WriteRows(1, first, 37); first += 37) {
      }
    });
    std::thread acks([&writer] {
      while (writer.Read()) {
      }
    });
    TestFollower follower(server.port(), model.Position());
    const uint64_t enough = model.rows() + 5000 * (life + 1);
    bool killed = false;
    while (follower.Read()) {
      model.Add(follower.reply());
      EXPECT_EQ(follower.reply().rows_missed(), 0);
      if (killed || model.rows() < enough) continue;
      server.Stop(SIGKILL);
      killed = true;
    }
    EXPECT_EQ(follower.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
    sender.join();
    acks.join();
  }
  ServerProcess server({.data_dir = dir.File("data"), .capacity_rows = 4'000'000});
  TestFollower follower(server.port(), model.Position());
  do {
    ASSERT_TRUE(follower.Read());
    model.Add(follower.reply());
  } while (!follower.has_everything());
  EXPECT_EQ(follower.reply().rows_missed(), 0);
  EXPECT_EQ(model.rows(), Describe(server.port()).tables(0).rows_appended());
}

}  // namespace
}  // namespace troupe
