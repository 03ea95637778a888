// How many rows a message holds, and when a shard's rate limiter lets no more of them be made.
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/unit/client/row_writer_fixture.h"

namespace troupe {
namespace {

// What must not happen is given this long to happen.
constexpr absl::Duration kAWhile = absl::Milliseconds(100);

// A row that is appended by a thread of its own.
class PendingAppend final {
 public:
  explicit PendingAppend(std::function<absl::Status()> append)
      : thread_([this, append = std::move(append)] {
          status_ = append();
          returned_.Notify();
        }) {}
  ~PendingAppend() { thread_.join(); }

  bool ReturnsWithinAWhile() const { return returned_.WaitForNotificationWithTimeout(kAWhile); }
  absl::Status Wait() const {
    returned_.WaitForNotification();
    return status_;
  }

 private:
  absl::Notification returned_;
  absl::Status status_;
  std::thread thread_;  // last, so that it sees the rest constructed
};

// Messages of ten rows, whatever the time: once connected, nothing is sent that is not full.
class FullMessagesTest : public RowWriterTest {
 protected:
  FullMessagesTest() { options_.max_delay = absl::Hours(1); }

  void StartConnected() {
    Start();
    ASSERT_TRUE(writer_->WaitConnected(Soon()).ok());
  }
  // The writer has been told: ten rows are acked, and no more are wanted.
  void HoldBackAfterTenRows() {
    Script(first_, [](FakeShardState& s) LOCKED { s.admits_rows = 10; });
    StartConnected();
    AppendRows(5);
    AwaitAcked(10);
  }
  void Admit(FakeShard& shard) {
    Script(shard, [](FakeShardState& s) LOCKED { s.admits_rows = 1'000'000; });
  }
};

TEST_F(FullMessagesTest, AppendWaitsThoughTheBufferIsEmpty) {
  HoldBackAfterTenRows();
  PendingAppend pending([this] { return Append(0); });
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  EXPECT_EQ(writer_->stats().unacked_bytes, 0);
  EXPECT_EQ(writer_->stats().rows_appended, 10);
  Admit(first_);
  EXPECT_TRUE(pending.Wait().ok());
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_), Appended());
  EXPECT_EQ(writer_->stats().rows_dropped, 0);
}

TEST_F(FullMessagesTest, AppendGoesOnOnlyWhenAllEarlierRowsAreAcked) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.stores_rows = 0;
    s.admits_rows = 10;
  });
  StartConnected();
  AppendRows(15);  // three messages
  Script(first_, [](FakeShardState& s) LOCKED { s.stores_rows = 20; });
  AwaitAcked(10);  // and with that the writer was told
  int64_t stored = 0;
  PendingAppend pending([&] {
    const auto look = [&](absl::Span<char> row) {
      Script(first_, [&](FakeShardState& s) LOCKED { stored = s.Rows(); });
    };
    return writer_->Append(0, look).status();
  });
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  Admit(first_);
  AwaitAcked(20);  // and with that it was told that it is admitted, the third message on its way
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  Script(first_, [](FakeShardState& s) LOCKED { s.stores_rows = 1000; });
  EXPECT_TRUE(pending.Wait().ok());
  EXPECT_EQ(stored, 30);
  EXPECT_EQ(writer_->stats().rows_dropped, 0);
}

TEST_F(FullMessagesTest, ABrokenConnectionEndsIt) {
  HoldBackAfterTenRows();
  PendingAppend pending([this] { return Append(0); });
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  first_.Kill();
  EXPECT_TRUE(pending.Wait().ok());
  EXPECT_EQ(writer_->stats().rows_acked, 10);
  Admit(first_);
  first_.Restart();
  ASSERT_TRUE(writer_->Flush(Soon()).ok());
  EXPECT_EQ(Rewards(first_), Appended());
}

TEST_F(FullMessagesTest, StopWakesAppend) {
  HoldBackAfterTenRows();
  PendingAppend pending([this] { return Append(0); });
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  writer_->Stop();
  EXPECT_EQ(pending.Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(writer_->stats().rows_appended, 10);
}

TEST_F(FullMessagesTest, NothingOfAnAbsentShardIsDroppedMeanwhile) {
  options_.move_after = absl::Milliseconds(50);
  options_.max_unacked_bytes = 100 * kStride;
  second_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED { s.acks = false; });
  Script(second_, [](FakeShardState& s) LOCKED { s.admits_rows = 0; });
  StartConnected();
  AppendRows(50);  // the buffer is full
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 100; });
  first_.Kill();
  second_.Restart();
  while (writer_->stats().moves == 0) std::this_thread::yield();
  PendingAppend pending([this] { return Append(0); });
  EXPECT_FALSE(pending.ReturnsWithinAWhile());
  EXPECT_EQ(writer_->stats().rows_dropped, 0);
  Admit(second_);
  EXPECT_TRUE(pending.Wait().ok());
  EXPECT_GT(writer_->stats().rows_dropped, 0);
}

TEST_F(FullMessagesTest, AMessageHoldsItsBytes) {
  StartConnected();
  AppendRows(20);
  Await(first_, [](const FakeShardState& s) LOCKED { return s.Rows() == 40; });
  Script(first_, [](FakeShardState& s) LOCKED {
    EXPECT_EQ(s.messages, 4);
    EXPECT_EQ(s.largest_message_bytes, 10 * kStride);
  });
}

}  // namespace
}  // namespace troupe
