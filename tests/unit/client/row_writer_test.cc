#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "tests/unit/client/row_writer_fixture.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST_F(RowWriterTest, EveryRowArrivesOnceInOrder) {
  Start();
  ASSERT_TRUE(writer_->WaitConnected(Soon()).ok());
  AppendRows(500);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_), Appended());
  EXPECT_TRUE(Rewards(second_).empty());
  const RowWriterStats stats = writer_->stats();
  EXPECT_EQ(stats.rows_appended, 1000);
  EXPECT_EQ(stats.rows_acked, 1000);
  EXPECT_EQ(stats.unacked_bytes, 0);
  EXPECT_EQ(stats.reconnects, 0);
}

TEST_F(RowWriterTest, ALoneRowIsSentAfterTheDelay) {
  Start();
  ASSERT_TRUE(Append(0).ok());
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 1; });
}

TEST_F(RowWriterTest, StartsWithTheShardOfItsIndex) {
  options_.first_shard = 3;
  Start();
  AppendRows(10);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(second_), Appended());
}

TEST_F(RowWriterTest, SparseAcksFreeAllRows) {
  Script(first_, [](FakeShardState& s) LOCKED { s.ack_one_in = 7; });
  options_.max_unacked_bytes = 100 * kStride;
  options_.max_delay = absl::Hours(1);  // no message is sent before it is full ...
  Start();
  ASSERT_TRUE(writer_->WaitConnected(Soon()).ok());  // ... or because the shard answers
  AppendRows(350);                                   // 70 messages
  EXPECT_TRUE(writer_->Flush(Soon()).ok());
}

TEST_F(RowWriterTest, RowsWhoseAcksWereLostAreNotStoredTwice) {
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = false; });
  Start();
  AppendRows(100);
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 200; });
  EXPECT_EQ(writer_->stats().rows_acked, 0);
  first_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = true; });
  first_.Restart();
  AppendRows(50);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_), Appended());
  EXPECT_EQ(writer_->stats().rows_acked, 300);
  EXPECT_GE(writer_->stats().reconnects, 1);
  // The answer to the open told the writer what to leave out.
  Script(first_, [](FakeShardState& s) LOCKED { EXPECT_EQ(s.duplicate_rows, 0); });
}

TEST_F(RowWriterTest, KeepsAppendingThroughManyRestarts) {
  options_.max_unacked_bytes = 10'000 * kStride;  // all, even if nothing is ever acked
  Start();
  for (int i = 0; i < 10; ++i) {
    AppendRows(40);
    first_.Kill();
    AppendRows(20);
    first_.Restart();
  }
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_), Appended());
}

TEST_F(RowWriterTest, AFullBufferBlocksUntilRowsAreAcked) {
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = false; });
  options_.max_unacked_bytes = 40 * kStride;
  Start();
  AppendRows(20);
  absl::Notification returned;
  std::thread blocked([&] {
    EXPECT_TRUE(Append(0).ok());
    returned.Notify();
  });
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 40; });
  EXPECT_FALSE(returned.HasBeenNotified());
  EXPECT_EQ(writer_->stats().unacked_bytes, 40 * kStride);
  while (writer_->stats().blocked == absl::ZeroDuration()) std::this_thread::yield();
  first_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = true; });
  first_.Restart();
  blocked.join();
  EXPECT_TRUE(writer_->Flush(Soon()).ok());
}

TEST_F(RowWriterTest, StopWakesABlockedAppend) {
  first_.Kill();
  options_.max_unacked_bytes = 10 * kStride;
  Start();
  AppendRows(5);
  std::thread blocked([&] { EXPECT_EQ(Append(0).code(), absl::StatusCode::kCancelled); });
  writer_->Stop();
  blocked.join();
}

TEST_F(RowWriterTest, NeverHasMoreOnTheWireThanTheShardAllows) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.acks = false;
    s.window_bytes = 25 * kStride;
  });
  Start();
  AppendRows(100);
  EXPECT_EQ(writer_->Flush(absl::Now() + absl::Milliseconds(200)).code(),
            absl::StatusCode::kDeadlineExceeded);
  Script(first_, [](FakeShardState& s) LOCKED { EXPECT_LE(s.Rows(), 25); });
}

TEST_F(RowWriterTest, AnotherRunIsAPermanentError) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.refuse = {grpc::StatusCode::FAILED_PRECONDITION, "holds run 'other'"};
  });
  Start();
  const absl::Status status = writer_->WaitConnected(Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("holds run 'other'"));
  EXPECT_THAT(status.message(), HasSubstr(first_.target()));
  EXPECT_EQ(Append(0), status);
  EXPECT_EQ(writer_->status(), status);
}

TEST_F(RowWriterTest, AFullShardIsTriedAgain) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.refuse = {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls"};
  });
  Start();
  absl::Status status;
  do {  // before the first refusal it is not known why
    status = writer_->WaitConnected(absl::Now() + absl::Milliseconds(100));
    ASSERT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  } while (!absl::StrContains(status.message(), "too many calls"));
  Script(first_, [](FakeShardState& s) LOCKED { s.refuse = grpc::Status::OK; });
  EXPECT_TRUE(writer_->WaitConnected(Soon()).ok());
}

TEST_F(RowWriterTest, GoesBackToItsShardOnceThatHasReturned) {
  options_.move_after = absl::Milliseconds(50);
  Start();
  AppendRows(20);
  first_.Kill();
  while (writer_->stats().shard == 0) std::this_thread::yield();
  AppendRows(20);
  first_.Restart();
  while (writer_->stats().shard == 1) std::this_thread::yield();
  AppendRows(20);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(writer_->stats().moves, 2);
  std::vector<double> all = Rewards(first_);
  for (const double reward : Rewards(second_)) all.push_back(reward);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, Appended());
}

TEST_F(RowWriterTest, MovesToAnotherShardAndDeliversTheOldRowsLater) {
  options_.move_after = absl::Milliseconds(50);
  second_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = false; });
  Start();
  AppendRows(50);
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 100; });
  AppendRows(3);  // some of these may never reach the first shard before it dies
  first_.Kill();
  second_.Restart();
  while (writer_->stats().moves == 0) std::this_thread::yield();
  AppendRows(30);
  Await(second_, [](const FakeShardState& s) LOCKED { return s.Rows() == 60; });
  EXPECT_EQ(writer_->stats().moves, 1);
  EXPECT_EQ(writer_->stats().shard, 1);
  EXPECT_EQ(writer_->Flush(absl::Now()).code(), absl::StatusCode::kDeadlineExceeded);

  Script(first_, [](FakeShardState& s) LOCKED { s.acks = true; });
  first_.Restart();
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  std::vector<double> all = Rewards(first_);
  for (const double reward : Rewards(second_)) all.push_back(reward);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, Appended());
  EXPECT_EQ(writer_->stats().rows_acked, writer_->stats().rows_appended);
  EXPECT_EQ(writer_->stats().rows_dropped, 0);
}

TEST_F(RowWriterTest, DropsTheRowsOfAnAbsentShardOnlyForRoom) {
  options_.move_after = absl::Milliseconds(50);
  options_.max_unacked_bytes = 100 * kStride;
  second_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = false; });
  Start();
  AppendRows(50);  // the buffer is full
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 100; });
  first_.Kill();
  second_.Restart();
  AppendRows(200);
  Await(second_, [](const FakeShardState& s) LOCKED { return s.Rows() == 400; });
  const RowWriterStats stats = writer_->stats();
  EXPECT_GT(stats.rows_dropped, 0);
  // The shard comes back and had stored even the rows that were given up.
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = true; });
  first_.Restart();
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(writer_->stats().rows_acked + writer_->stats().rows_dropped, 500);
}

TEST_F(RowWriterTest, BeginsNewStreamsWhereAShardLostAckedRows) {
  Start();
  AppendRows(20);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  first_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.streams.clear(); });
  AppendRows(10);
  first_.Restart();
  AppendRows(10);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_).size(), 40);
  EXPECT_EQ(writer_->stats().streams_renamed, 2);
}

TEST_F(RowWriterTest, AnAckOfRowsNeverSentBreaksTheConnection) {
  Script(first_, [](FakeShardState& s) LOCKED { s.overclaim_rows = 1; });
  Start();
  Await(first_, [](const FakeShardState& s) LOCKED { return s.append_opens >= 2; });
  EXPECT_EQ(writer_->stats().rows_acked, 0);
  EXPECT_FALSE(writer_->stats().connected);
}

TEST_F(RowWriterTest, StreamsSayWhatEachShardHolds) {
  Start();
  AppendRows(10);
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  const std::vector<RowStream> streams = writer_->streams();
  ASSERT_EQ(streams.size(), 2);
  for (const RowStream& stream : streams) {
    EXPECT_EQ(stream.shard, 0);
    EXPECT_EQ(stream.appended_rows, 10);
    EXPECT_EQ(stream.acked_rows, 10);
  }
}

TEST_F(RowWriterTest, OptionsOutOfRangeAreNamed) {
  options_.max_unacked_bytes = 1;
  const auto writer = RowWriter::Create(options_, *Layout::FromProto(testing::SmallLayout()));
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(writer.status().message(), HasSubstr("max_unacked_bytes is 1"));
}

}  // namespace
}  // namespace troupe
