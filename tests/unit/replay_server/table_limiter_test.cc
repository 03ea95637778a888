// A table and its limiter: preloading, what restarts leave behind, and the words for who waits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "tests/unit/replay_server/table_fixture.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class TableLimiterTest : public TableFixture {
 protected:
  TableLimiterTest() {
    options_.rate_limit = {.min_size = 10, .samples_per_insert = 1, .slack = 20};
  }

  // Rows of one stream that complete as many windows.
  void Append(uint64_t windows, bool preload = false) {
    const uint64_t count = windows + (next_ == 0 ? 1 : 0);
    const std::string rows = Rows(1, next_, count);
    ASSERT_TRUE(table_->Append({RowRunView{1, next_, rows}}, 0, preload).ok());
    next_ += count;
  }
  bool MayWrite() {
    const auto waiter = std::make_shared<Waiter>(Waiter{.wake = [] {}});
    const bool may_write = table_->AdmitWriterOrWait(waiter) == Admission::kAdmitted;
    table_->Forget(waiter);
    return may_write;
  }
  bool Sample(uint64_t n) {
    const auto waiter = std::make_shared<Waiter>(Waiter{.wake = [] {}});
    SampleBatch batch;
    const bool sampled = table_->SampleOrWait({n, 0}, waiter, &batch);
    table_->Forget(waiter);
    return sampled;
  }
  WaiterPtr Wait(const SampleQuery& query) {
    auto waiter = std::make_shared<Waiter>(Waiter{.wake = [] {}});
    SampleBatch batch;
    EXPECT_FALSE(table_->SampleOrWait(query, waiter, &batch));
    return waiter;
  }
  std::string SamplersWaitFor() { return table_->Describe().samplers_wait_for(); }
  std::string WritersWaitFor() { return table_->Describe().writers_wait_for(); }

  // A restart after which no row is left, while the counts are: every block's data is damaged.
  void LoseAllRows() {
    table_ = nullptr;
    const auto size = std::filesystem::file_size(options_.path);
    std::FILE* file = std::fopen(options_.path.c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    const std::string garbage(options_.capacity_rows * TestLayout().stride_bytes(), 'x');
    std::fseek(file, static_cast<long>(size - garbage.size()), SEEK_SET);
    std::fwrite(garbage.data(), 1, garbage.size(), file);
    std::fclose(file);
    next_ = 0;
    Make();
    ASSERT_EQ(table_->Describe().rows(), 0);
  }

  uint64_t next_ = 0;  // row
};

TEST_F(TableLimiterTest, PreloadedWindowsWarmUpAndAreNotInserts) {
  Make();
  Append(8, /*preload=*/true);
  EXPECT_FALSE(Sample(1));
  Append(100, /*preload=*/true);
  const proto::TableDescription table = table_->Describe();
  EXPECT_EQ(table.counts().preloaded(), 108);
  EXPECT_EQ(table.counts().inserted(), 0);
  EXPECT_TRUE(MayWrite());
  EXPECT_TRUE(Sample(20));
  EXPECT_FALSE(Sample(1));
  Append(1);
  EXPECT_TRUE(Sample(1));
  next_ = 0;
  Make();  // the counts are in the file
  EXPECT_EQ(table_->Describe().counts().preloaded(), 108);
  EXPECT_FALSE(Sample(1));
}

TEST_F(TableLimiterTest, WhatALearnerDrewItselfIsSampledAndFreesTheWriters) {
  Make();
  Append(31);
  EXPECT_FALSE(MayWrite());
  table_->NoteSampled(1);
  EXPECT_TRUE(MayWrite());
  table_->NoteSampled(30);
  table_->NoteSampled(20);  // no more than before
  EXPECT_EQ(table_->Describe().counts().sampled(), 30);
  EXPECT_FALSE(Sample(12));
  EXPECT_TRUE(Sample(11));
  Make();  // the counts are in the file
  EXPECT_EQ(table_->Describe().counts().sampled(), 41);
}

TEST_F(TableLimiterTest, WritersOfAShardThatLostItsRowsGoOn) {
  Make();
  Append(31);
  EXPECT_FALSE(MayWrite());  // one more than min_size and slack
  LoseAllRows();
  EXPECT_EQ(table_->Describe().counts().inserted(), 31);
  EXPECT_FALSE(Sample(1));
  EXPECT_TRUE(MayWrite());
  Append(1);
  EXPECT_FALSE(MayWrite());
  EXPECT_TRUE(Sample(16));
  EXPECT_TRUE(MayWrite());
}

TEST_F(TableLimiterTest, ASamplerThatLacksWindowsFreesTheWriters) {
  options_.selector = proto::FIFO;
  options_.max_times_sampled = 1;
  Make();
  Append(31);
  LoseAllRows();
  Append(5);
  ASSERT_FALSE(MayWrite());
  const WaiterPtr sampler = Wait({.num_windows = 16});
  EXPECT_THAT(SamplersWaitFor(), HasSubstr("windows: 16 wanted, 5 selectable on this shard"));
  EXPECT_TRUE(MayWrite());
  Append(11);
  table_->Forget(sampler);
  EXPECT_TRUE(Sample(16));
}

TEST_F(TableLimiterTest, ASamplerThatLacksWindowsWakesWaitingWriters) {
  options_.selector = proto::FIFO;
  options_.max_times_sampled = 1;
  Make();
  Append(31);
  LoseAllRows();
  Append(5);
  absl::Notification woken;
  const auto writer = std::make_shared<Waiter>(Waiter{.wake = [&] { woken.Notify(); }});
  ASSERT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  const WaiterPtr sampler = Wait({.num_windows = 16});
  EXPECT_TRUE(woken.WaitForNotificationWithTimeout(absl::Minutes(1)));
  table_->Forget(sampler);
}

TEST_F(TableLimiterTest, AnotherShardReplacedByAnEmptyOneTakesItsCountsAlong) {
  Make();
  Append(31);
  ASSERT_TRUE(Sample(30));
  table_->NoteOthers(/*inserted=*/1000, /*preloaded=*/0, /*sampled=*/970);
  ASSERT_FALSE(MayWrite());
  // Gone, and with it what it had inserted beyond its samples; the learner waits for inserts.
  table_->NoteOthers(0, 0, 0);
  EXPECT_TRUE(MayWrite());
}

TEST_F(TableLimiterTest, SaysWhatALearnerWaitsForThatAsksForTheCountsBecauseNoBatchFits) {
  Make();
  Append(4);
  const WaiterPtr poll = Wait({.num_windows = 0, .inserted_above = 4, .lacks_windows = 21});
  EXPECT_THAT(SamplersWaitFor(), HasSubstr("1 sampling, the first for "));
  EXPECT_THAT(SamplersWaitFor(),
              HasSubstr("more than 4 windows inserted; there are 4; no sample fits, min_size: 4 of "
                        "10 windows inserted; 7 more inserts free it"));
  const WaiterPtr drawing = Wait({.num_windows = 8});
  EXPECT_THAT(SamplersWaitFor(), HasSubstr(": min_size: 4 of 10"));
  table_->Forget(poll);
  table_->Forget(drawing);
  EXPECT_EQ(SamplersWaitFor(), "");
}

TEST_F(TableLimiterTest, ALearnerThatOnlyAsksHowFarTheShardIsDoesNotWait) {
  Make();
  Append(15);
  const WaiterPtr poll = Wait({.num_windows = 0, .inserted_above = 15});
  EXPECT_EQ(SamplersWaitFor(), "");
  const WaiterPtr lacking = Wait({.num_windows = 0, .inserted_above = 15, .lacks_windows = 30});
  EXPECT_THAT(SamplersWaitFor(), HasSubstr("1 sampling, the first for "));
  EXPECT_THAT(SamplersWaitFor(), HasSubstr("0 sampled + 30 wanted"));
  table_->Forget(poll);
  table_->Forget(lacking);
}

TEST_F(TableLimiterTest, SaysWhatWritersWaitForAndSinceWhen) {
  Make();
  Append(31);
  const auto writer = std::make_shared<Waiter>(Waiter{.wake = [] {}});
  ASSERT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  EXPECT_THAT(WritersWaitFor(), HasSubstr("1 writing, the first for "));
  EXPECT_THAT(WritersWaitFor(), HasSubstr("1 * (31 inserted - 10) - 0 sampled > slack 20; 1 more "
                                          "samples free it"));
  table_->Forget(writer);
}

TEST_F(TableLimiterTest, SaysInNumbersWhoWaitsForWhatAndHowLongAnybodyDid) {
  Restart();
  EXPECT_EQ(table_->Describe().samplers().reason(), proto::NO_WAIT);
  const WaiterPtr first = Wait({.num_windows = 1});
  EXPECT_EQ(table_->Describe().samplers().reason(), proto::FIRST_ACTOR);
  table_->Forget(first);
  Make();
  Append(4);
  const WaiterPtr early = Wait({.num_windows = 1});
  EXPECT_EQ(table_->Describe().samplers().reason(), proto::MIN_SIZE);
  table_->Forget(early);
  Append(11);
  const WaiterPtr greedy = Wait({.num_windows = 30});
  const WaiterPtr follower = Wait({.num_windows = 0, .inserted_above = 15, .lacks_windows = 1});
  proto::Waits waits = table_->Describe().samplers();
  EXPECT_EQ(waits.reason(), proto::SAMPLES_PER_INSERT);
  EXPECT_EQ(waits.calls(), 2);
  EXPECT_GT(waits.longest_seconds(), 0);
  EXPECT_GE(waits.total_seconds(), waits.longest_seconds());
  table_->Forget(greedy);
  EXPECT_EQ(table_->Describe().samplers().reason(), proto::NEXT_ROWS);
  table_->Forget(follower);
  waits = table_->Describe().samplers();
  EXPECT_EQ(waits.reason(), proto::NO_WAIT);
  EXPECT_EQ(waits.calls(), 0);
  EXPECT_EQ(waits.longest_seconds(), 0);
  EXPECT_GT(waits.total_seconds(), 0);
  EXPECT_EQ(table_->Describe().samplers().total_seconds(), waits.total_seconds());
}

TEST_F(TableLimiterTest, SaysByAWordWhatHoldsWritersBack) {
  options_.rate_limit.queue_length = 12;
  Make();
  EXPECT_EQ(table_->Describe().writers().reason(), proto::NO_WAIT);
  Append(12);
  const auto writer = std::make_shared<Waiter>(Waiter{.wake = [] {}});
  ASSERT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  EXPECT_EQ(table_->Describe().writers().reason(), proto::QUEUE_LENGTH);
  EXPECT_EQ(table_->Describe().writers().calls(), 1);
  Append(19);  // a message that was under way
  EXPECT_EQ(table_->Describe().writers().reason(), proto::SAMPLES_PER_INSERT);
  table_->Forget(writer);
  EXPECT_EQ(table_->Describe().writers().reason(), proto::NO_WAIT);
  EXPECT_GT(table_->Describe().writers().total_seconds(), 0);
}

}  // namespace
}  // namespace troupe
