// A learner that draws windows itself: what it is admitted, and what the shards are told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "common/replay_client.h"
#include "tests/unit/client/fake_shard.h"

namespace troupe {
namespace {

using testing::FakeShard;
using testing::FakeShardState;
using ::testing::HasSubstr;

#define LOCKED ABSL_NO_THREAD_SAFETY_ANALYSIS

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }
absl::Time Shortly() { return absl::Now() + absl::Milliseconds(100); }

// Two shards, the first with 300 windows, the second with 100: worth 8 * (400 - 390) + 80 = 160
// samples, two batches of 64.
class DrawsTest : public ::testing::Test {
 protected:
  DrawsTest() {
    Fill(first_, 300);
    Fill(second_, 100);
    client_ =
        ReplayClient::Create({.shards = {first_.target(), second_.target()},
                              .run = "test",
                              .table = "replay",
                              .batch_size = 64,
                              .rate_limit = {.min_size = 390, .samples_per_insert = 8, .slack = 80},
                              .reconnect_min = absl::Milliseconds(1),
                              .reconnect_max = absl::Milliseconds(20)})
            .value();
    EXPECT_TRUE(client_->WaitForTable(Soon()).ok());
  }

  static void Fill(FakeShard& shard, int64_t windows) {
    shard.state().Set([&](FakeShardState& s) LOCKED {
      s.layout = testing::SmallLayout();
      s.inserted += windows;
      s.mass += static_cast<double>(windows);
    });
  }
  // Waits until the shard counts so many samples, and knows of so many of the other one.
  static void AwaitTold(FakeShard& shard, uint64_t sampled, uint64_t others) {
    ASSERT_TRUE(shard.state().Await([&](const FakeShardState& s) LOCKED {
      return s.sampled == sampled && !s.requests.empty() &&
             s.requests.back().others_sampled() == others;
    }));
  }

  FakeShard first_;
  FakeShard second_;
  std::unique_ptr<ReplayClient> client_;
};

TEST_F(DrawsTest, AsManyAreAdmittedAsTheUnionOfTheShardsIsWorth) {
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).value(), 2);
  const absl::Status none = client_->AdmitDraws(10, Shortly()).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(none.message(),
              HasSubstr("128 sampled + 64 wanted > 8 * (400 inserted - 390) + slack 80"));
  Fill(second_, 4);
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).value(), 1);
  EXPECT_EQ(client_->counts().sampled, 192);
  EXPECT_EQ(client_->stats().batches, 3);
}

TEST_F(DrawsTest, NoMoreAreAdmittedThanAreWanted) {
  EXPECT_EQ(client_->AdmitDraws(1, Soon()).value(), 1);
  EXPECT_EQ(client_->AdmitDraws(1, Soon()).value(), 1);
  EXPECT_FALSE(client_->AdmitDraws(1, Shortly()).ok());
}

TEST_F(DrawsTest, TheShardsCountThemBetweenThemAndEachKnowsOfTheOther) {
  EXPECT_TRUE(client_->AdmitDraws(1, Soon()).ok());
  EXPECT_TRUE(client_->AdmitDraws(1, Soon()).ok());
  AwaitTold(first_, 64, 64);
  AwaitTold(second_, 64, 64);
}

TEST_F(DrawsTest, AShardThatWasAwayIsToldOfWhatWasDrawnMeanwhile) {
  EXPECT_TRUE(client_->AdmitDraws(1, Soon()).ok());
  EXPECT_TRUE(client_->AdmitDraws(1, Soon()).ok());
  AwaitTold(first_, 64, 64);
  AwaitTold(second_, 64, 64);
  first_.Kill();
  while (client_->stats().shards_up > 1) absl::SleepFor(absl::Milliseconds(1));
  Fill(second_, 16);
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).value(), 2);
  AwaitTold(second_, 192, 64);
  first_.Restart();
  AwaitTold(first_, 64, 192);
}

TEST_F(DrawsTest, AShardThatLostItsRowsLosesWhatWasSampledForThemToo) {
  EXPECT_EQ(client_->AdmitDraws(1, Soon()).value(), 1);
  EXPECT_EQ(client_->AdmitDraws(1, Soon()).value(), 1);
  AwaitTold(second_, 64, 64);
  second_.Kill();
  second_.state().Set([](FakeShardState& s) LOCKED {
    s.inserted = 20;
    s.sampled = 0;
    s.mass = 20;
  });
  second_.Restart();
  while (client_->counts().inserted != 320) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(client_->counts().sampled, 64);
  EXPECT_FALSE(client_->AdmitDraws(1, Shortly()).ok());
  Fill(second_, 90);  // 8 * (410 - 390) + 80 - 64 = 176
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).value(), 2);
}

TEST_F(DrawsTest, StopWakesWhoWaitsForThem) {
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).value(), 2);
  std::thread stopper([this] { client_->Stop(); });
  EXPECT_EQ(client_->AdmitDraws(10, Soon()).status().code(), absl::StatusCode::kCancelled);
  stopper.join();
}

}  // namespace
}  // namespace troupe
