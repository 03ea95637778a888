#include "common/snapshot_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crc32c.h"
#include "tests/unit/client/fake_shard.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using testing::FakeShard;
using testing::FakeShardState;
using ::testing::HasSubstr;

#define LOCKED ABSL_NO_THREAD_SAFETY_ANALYSIS

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }
absl::Time Shortly() { return absl::Now() + absl::Milliseconds(100); }

SnapshotPtr MakeSnapshot(uint64_t version, size_t size_bytes = 2'500'000) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->run = "test";
  snapshot->version = version;
  snapshot->created_unix_ns = 42;
  snapshot->image.assign(size_bytes, static_cast<char>(version));
  snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
  return snapshot;
}

class SnapshotClientTest : public ::testing::Test {
 protected:
  SnapshotClientTest() {
    options_.shards = {first_.target(), second_.target()};
    options_.run = "test";
    options_.reconnect_min = absl::Milliseconds(1);
    options_.reconnect_max = absl::Milliseconds(20);
  }

  void Publish(std::unique_ptr<SnapshotPublisher>& publisher) {
    publisher = *SnapshotPublisher::Create(options_);
  }
  void Subscribe(int preferred = 0) {
    subscriber_ = *SnapshotSubscriber::Create(options_, preferred);
  }
  // Puts a snapshot into a shard.
  static void Hold(FakeShard& shard, const Snapshot& snapshot) {
    Script(shard, [&](FakeShardState& s) LOCKED {
      s.header.set_run(snapshot.run);
      s.header.set_version(snapshot.version);
      s.header.set_size_bytes(snapshot.image.size());
      s.header.set_crc32c(snapshot.crc32c);
      s.image = snapshot.image;
    });
  }
  static void Script(FakeShard& shard, const std::function<void(FakeShardState&)>& change) {
    shard.state().Set(change);
  }
  static void Await(FakeShard& shard, const std::function<bool(const FakeShardState&)>& what) {
    ASSERT_TRUE(shard.state().Await(what));
  }
  static std::vector<uint64_t> Published(FakeShard& shard) {
    std::vector<uint64_t> versions;
    Script(shard, [&](FakeShardState& s) LOCKED { versions = s.published; });
    return versions;
  }

  FakeShard first_;
  FakeShard second_;
  SnapshotClientOptions options_;
  std::unique_ptr<SnapshotPublisher> publisher_;
  std::unique_ptr<SnapshotSubscriber> subscriber_;
};

TEST_F(SnapshotClientTest, TravelsFromThePublisherThroughAShard) {
  Publish(publisher_);
  Subscribe();
  EXPECT_EQ(subscriber_->Newest(), nullptr);
  const SnapshotPtr sent = MakeSnapshot(5);
  ASSERT_TRUE(publisher_->Publish(sent).ok());
  ASSERT_TRUE(publisher_->WaitPublished(5, Soon()).ok());
  EXPECT_THAT(publisher_->published(), ElementsAre(5, 5));
  const auto received = subscriber_->WaitNewer(0, Soon());
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ((*received)->version, 5);
  EXPECT_EQ((*received)->created_unix_ns, 42);
  EXPECT_EQ((*received)->image, sent->image);
  EXPECT_EQ(subscriber_->Newest(), *received);
}

TEST_F(SnapshotClientTest, ASubscriberFollowsEveryNewVersion) {
  Subscribe();
  for (uint64_t version = 1; version <= 5; ++version) {
    Hold(first_, *MakeSnapshot(version, 10'000));
    const auto received = subscriber_->WaitNewer(version - 1, Soon());
    ASSERT_TRUE(received.ok()) << received.status();
    EXPECT_EQ((*received)->version, version);
  }
  EXPECT_EQ(subscriber_->stats().reconnects, 0);
}

TEST_F(SnapshotClientTest, ASlowShardSkipsVersions) {
  Script(first_, [](FakeShardState& s) LOCKED { s.takes_snapshots = false; });
  Publish(publisher_);
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(1)).ok());
  Await(second_, [](const FakeShardState& s) LOCKED { return s.published.size() == 1; });
  for (uint64_t version = 2; version <= 9; ++version) {
    ASSERT_TRUE(publisher_->Publish(MakeSnapshot(version)).ok());
  }
  EXPECT_EQ(publisher_->WaitPublished(9, Shortly()).code(), absl::StatusCode::kDeadlineExceeded);
  Script(first_, [](FakeShardState& s) LOCKED { s.takes_snapshots = true; });
  ASSERT_TRUE(publisher_->WaitPublished(9, Soon()).ok());
  const std::vector<uint64_t> versions = Published(first_);
  EXPECT_LE(versions.size(), 2);
  EXPECT_EQ(versions.back(), 9);
}

TEST_F(SnapshotClientTest, AShardThatComesBackGetsTheNewestAgain) {
  Publish(publisher_);
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(1)).ok());
  ASSERT_TRUE(publisher_->WaitPublished(1, Soon()).ok());
  first_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.published.clear(); });
  first_.Restart();
  Await(first_, [](const FakeShardState& s) LOCKED { return !s.published.empty(); });
  EXPECT_THAT(Published(first_), ElementsAre(1));
}

TEST_F(SnapshotClientTest, AnUnreachableShardDoesNotHoldUpTheLastSnapshot) {
  first_.Kill();
  Publish(publisher_);
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(1)).ok());
  EXPECT_TRUE(publisher_->WaitPublished(1, Soon()).ok());
  second_.Kill();
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(2)).ok());
  const absl::Status status = publisher_->WaitPublished(2, Shortly());
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr(second_.target()));
}

TEST_F(SnapshotClientTest, ANewerEpochStopsThePublisher) {
  Publish(publisher_);
  Script(second_, [](FakeShardState& s) LOCKED {
    s.refuse = {grpc::StatusCode::FAILED_PRECONDITION, "epoch 4 has published here"};
  });
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(1)).ok());
  const absl::Status status = publisher_->WaitPublished(1, Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(publisher_->Publish(MakeSnapshot(2)), status);
  EXPECT_EQ(publisher_->status(), status);
}

TEST_F(SnapshotClientTest, VersionsMustGrow) {
  Publish(publisher_);
  ASSERT_TRUE(publisher_->Publish(MakeSnapshot(2)).ok());
  EXPECT_EQ(publisher_->Publish(MakeSnapshot(2)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SnapshotClientTest, AWrongDigestIsCountedAndTheOtherShardAsked) {
  Snapshot corrupt = *MakeSnapshot(3, 5000);
  corrupt.image[1234] ^= 1;
  Hold(first_, corrupt);
  Hold(second_, *MakeSnapshot(2, 5000));
  Subscribe();
  const auto received = subscriber_->WaitNewer(0, Soon());
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ((*received)->version, 2);
  EXPECT_GE(subscriber_->stats().rejected, 1);
  EXPECT_THAT(subscriber_->WaitNewer(2, Shortly()).status().message(), HasSubstr("no snapshot"));
}

TEST_F(SnapshotClientTest, MoreBytesThanAnnouncedAreRejected) {
  const Snapshot snapshot = *MakeSnapshot(3, 5000);
  Hold(first_, snapshot);
  Script(first_, [](FakeShardState& s) LOCKED { s.header.set_size_bytes(4500); });
  options_.shards = {first_.target()};
  Subscribe();
  do {
    const absl::Status status = subscriber_->WaitNewer(0, Shortly()).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  } while (subscriber_->stats().rejected == 0);
}

TEST_F(SnapshotClientTest, ASizeBeyondTheBoundIsRejectedBeforeItsBytes) {
  options_.max_snapshot_bytes = 4999;
  options_.shards = {first_.target()};
  Hold(first_, *MakeSnapshot(3, 5000));
  Subscribe();
  EXPECT_THAT(subscriber_->WaitNewer(0, absl::Now() + absl::Seconds(4)).status().message(),
              HasSubstr("5000 bytes, must be 1 to 4999"));
}

TEST_F(SnapshotClientTest, ASubscriberFallsToAnotherShardAndComesBack) {
  first_.Kill();
  Hold(second_, *MakeSnapshot(1, 100));
  Subscribe(/*preferred=*/0);
  ASSERT_TRUE(subscriber_->WaitNewer(0, Soon()).ok());
  first_.Restart();
  Hold(first_, *MakeSnapshot(2, 100));
  second_.Kill();
  const auto received = subscriber_->WaitNewer(1, Soon());
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ((*received)->version, 2);
}

TEST_F(SnapshotClientTest, AnotherRunEndsTheSubscription) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.refuse = {grpc::StatusCode::FAILED_PRECONDITION, "holds run 'other'"};
  });
  Subscribe();
  const absl::Status status = subscriber_->WaitNewer(0, Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(subscriber_->status(), status);
}

TEST_F(SnapshotClientTest, StopWakesTheWaiter) {
  Subscribe();
  subscriber_->Stop();
  EXPECT_EQ(subscriber_->WaitNewer(0, Soon()).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace troupe
