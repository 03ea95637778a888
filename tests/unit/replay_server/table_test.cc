#include "replay_server/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <thread>
#include <vector>

#include "common/version.h"
#include "tests/unit/replay_server/table_fixture.h"

namespace troupe {
namespace {

class TableTest : public TableFixture {
 protected:
  void Append(uint64_t stream, uint64_t first, uint64_t count,
              const std::set<uint64_t>& finals = {}, uint64_t policy_version = 0,
              uint64_t newest_version = 0) {
    const std::string rows = Rows(stream, first, count, finals, policy_version);
    const RowRunView run = {stream, first, rows};
    const auto acks = table_->Append({run}, newest_version, false);
    ASSERT_TRUE(acks.ok()) << acks.status();
    EXPECT_EQ((*acks)[0].held_rows(), first + count);
  }
  // `windows_`: what was drawn, one after another.
  bool Sample(uint64_t n, SampleBatch* batch) {
    const auto waiter = std::make_shared<Waiter>();
    const bool sampled = table_->SampleOrWait({n, 0}, waiter, batch);
    windows_.resize(batch->windows.size_bytes());
    batch->windows.MoveTo(reinterpret_cast<uint8_t*>(windows_.data()));
    table_->Forget(waiter);
    return sampled;
  }
  // Sets the priority of one window.
  PriorityOutcome SetPriority(uint64_t row_id, float priority) {
    proto::PriorityUpdates updates;
    updates.add_row_ids(row_id);
    updates.add_priorities(priority);
    const absl::StatusOr<PriorityOutcome> outcome = table_->UpdatePriorities(updates);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.value_or(PriorityOutcome{});
  }
  // Row numbers of the first rows of a batch of windows.
  std::vector<uint64_t> FirstRows(const SampleBatch& batch) const {
    std::vector<uint64_t> rows;
    for (size_t i = 0; i < batch.row_ids.size(); ++i) {
      rows.push_back(RowAt(windows_.data(), i * options_.window.length).row);
    }
    return rows;
  }

  std::string windows_;
};

TEST_F(TableTest, AWindowLeavesOnceItWasSampledItsNumberOfTimes) {
  options_.max_times_sampled = 2;
  Make();
  Append(1, 0, 11);  // ten windows, twenty draws
  std::map<uint64_t, int> times;
  SampleBatch batch;
  for (int i = 0; i < 4; ++i) {
    batch = {};
    ASSERT_TRUE(Sample(5, &batch));
    for (const uint64_t row : FirstRows(batch)) times[row]++;
  }
  for (uint64_t row = 0; row < 10; ++row) EXPECT_EQ(times[row], 2) << row;
  EXPECT_EQ(table_->Describe().mass(), 0);
  EXPECT_FALSE(Sample(1, &batch));
}

TEST_F(TableTest, ABatchLargerThanTheDrawsLeftWaits) {
  options_.max_times_sampled = 1;
  Make();
  Append(1, 0, 11);
  SampleBatch batch;
  EXPECT_FALSE(Sample(11, &batch));
  EXPECT_TRUE(Sample(10, &batch));
}

TEST_F(TableTest, TimesSampledOutliveTheTable) {
  options_.max_times_sampled = 1;
  options_.selector = proto::FIFO;
  Make();
  Append(1, 0, 11);
  SampleBatch batch;
  ASSERT_TRUE(Sample(4, &batch));
  EXPECT_THAT(FirstRows(batch), ::testing::ElementsAre(0, 1, 2, 3));
  Make();
  batch = {};
  ASSERT_TRUE(Sample(4, &batch));
  EXPECT_THAT(FirstRows(batch), ::testing::ElementsAre(4, 5, 6, 7));
}

TEST_F(TableTest, TheQueueCountsWindowsNeverSampledAndForgetsEvictedOnes) {
  options_.capacity_rows = 128;
  options_.rate_limit.queue_length = 100;
  Make();
  const auto writer = std::make_shared<Waiter>();
  Append(1, 0, 101);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  table_->Forget(writer);
  Append(1, 101, 28);  // evicts the first 64 rows: 64 windows are left
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kAdmitted);
}

TEST_F(TableTest, LagIsCountedAgainstTheNewestVersionOfTheSameEpoch) {
  Make();
  const auto version = [](uint64_t epoch, uint64_t counter) {
    return PolicyVersion{epoch, counter}.Packed();
  };
  Append(1, 0, 10, {}, version(2, 5), version(2, 8));
  Append(1, 10, 10, {}, version(1, 5), version(2, 8));
  Append(1, 20, 10, {}, 0, version(2, 8));
  EXPECT_EQ(table_->Describe().version_lag_rows(), 10);
  EXPECT_EQ(table_->Describe().version_lag_sum(), 30);
}

TEST_F(TableTest, AShardTakesInNoMoreThanItsPartUntilTheLearnersNextWord) {
  options_.num_shards = 2;
  options_.rate_limit.min_size = 10;
  options_.rate_limit.samples_per_insert = 1;
  options_.rate_limit.slack = 30;
  Make();
  const auto writer = std::make_shared<Waiter>();
  // The union may insert 10 + 30 windows; half of that is this shard's.
  Append(1, 0, 21);  // 20 windows
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kAdmitted);
  Append(1, 21, 1);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  EXPECT_THAT(table_->Describe().writers_wait_for(), testing::HasSubstr("this shard's part"));
  // Of the 19 that are left, the other shard has used 9: half of the rest is 5.
  table_->NoteOthers(9, 0, 0);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kAdmitted);
  Append(1, 22, 5);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kAdmitted);
  Append(1, 27, 1);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  table_->Forget(writer);
}

TEST_F(TableTest, ALearnerSaysHowManyShardsShareWhatMayBeInserted) {
  options_.num_shards = 1;
  options_.rate_limit.min_size = 10;
  options_.rate_limit.samples_per_insert = 1;
  options_.rate_limit.slack = 30;
  Make();
  const auto writer = std::make_shared<Waiter>();
  Append(1, 0, 21);  // 20 windows of 40
  table_->NoteOthers(0, 0, 0, /*num_shards=*/4);
  Append(1, 21, 5);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kAdmitted);
  Append(1, 26, 1);
  EXPECT_EQ(table_->AdmitWriterOrWait(writer), Admission::kHeldBack);
  table_->Forget(writer);
}

TEST_F(TableTest, EnvironmentStepsAreTheRowsThatAreNotFinal) {
  Make();
  Append(1, 0, 100, {10, 99});
  EXPECT_EQ(table_->Describe().counts().env_steps(), 98);
}

TEST_F(TableTest, RunsOfOneMessageMayFollowOneAnother) {
  Make();
  const std::string rows = Rows(1, 0, 10);
  const std::string more = Rows(1, 10, 5);
  EXPECT_TRUE(table_->Append({{1, 0, rows}, {1, 10, more}}, 0, false).ok());
  EXPECT_EQ(table_->Held({1})[0].held_rows(), 15);
}

TEST_F(TableTest, ARowNumberNearTheEndOfNumbersIsRefused) {
  Make();
  const std::string rows = Rows(1, 0, 2);
  EXPECT_EQ(table_->Append({{1, ~uint64_t{0}, rows}}, 0, false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Blocks are overwritten while their windows are copied out, unless they are pinned.
TEST_F(TableTest, SampledWindowsAreWholeWhileTheRingTurnsUnderThem) {
  options_.capacity_rows = 192;
  options_.window.length = 40;
  Make();
  Append(1, 0, 100);
  std::thread writer([this] {
    for (uint64_t first = 100; first < 60'000; first += 30) Append(1, first, 30);
  });
  for (int i = 0; i < 300; ++i) {
    SampleBatch batch;
    ASSERT_TRUE(Sample(64, &batch));
    for (uint64_t window = 0; window < 64; ++window) {
      const uint64_t first = RowAt(windows_.data(), window * 40).row;
      for (uint64_t k = 0; k < 40; ++k) {
        ASSERT_EQ(RowAt(windows_.data(), window * 40 + k).row, first + k);
      }
    }
  }
  writer.join();
}

// Row id of the window that starts at a row of the first stream of a new table.
uint64_t FirstRowId(uint64_t row) { return (row / kRowsPerBlock + 1) * kRowsPerBlock + row % 64; }

TEST_F(TableTest, NewWindowsBeginAtTheLargestPriorityThereWas) {
  options_.selector = proto::PRIORITIZED;
  options_.priority_exponent = 1;
  Make();
  Append(1, 0, 3);  // two windows of 1
  EXPECT_DOUBLE_EQ(table_->Describe().mass(), 2);
  EXPECT_EQ(SetPriority(FirstRowId(0), 5).updated, 1);
  EXPECT_EQ(SetPriority(FirstRowId(0), 3).updated, 1);
  EXPECT_DOUBLE_EQ(table_->Describe().mass(), 4);
  Append(1, 3, 1);
  EXPECT_DOUBLE_EQ(table_->Describe().mass(), 9);
}

TEST_F(TableTest, AnActorsOwnPriorityIsTheFirst) {
  options_.selector = proto::PRIORITIZED;
  options_.priority_exponent = 1;
  Make();
  std::string rows = Rows(1, 0, 2);
  RowHeader header = ReadRowHeader(rows.data());
  header.priority = 7;
  WriteRowHeader(header, rows.data());
  ASSERT_TRUE(table_->Append({{1, 0, rows}}, 0, false).ok());
  EXPECT_DOUBLE_EQ(table_->Describe().mass(), 7);
}

TEST_F(TableTest, PrioritiesSurviveARestart) {
  options_.selector = proto::PRIORITIZED;
  options_.priority_exponent = 1;
  Make();
  Append(1, 0, 101);  // a hundred windows of 1
  SetPriority(FirstRowId(70), 40);
  SetPriority(FirstRowId(71), 0);
  Restart();
  EXPECT_DOUBLE_EQ(table_->Describe().mass(), 98 + 40);
  EXPECT_EQ(table_->Describe().max_priority(), 40);
  SampleBatch batch;
  int drawn = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Sample(100, &batch));
    for (const uint64_t row : FirstRows(batch)) {
      EXPECT_NE(row, 71);
      drawn += row == 70;
    }
  }
  EXPECT_NEAR(drawn, 10'000 * 40 / 138, 300);  // six standard deviations
}

TEST_F(TableTest, APriorityOfAnEvictedOrUnknownRowIsCountedAndChangesNothing) {
  options_.selector = proto::PRIORITIZED;
  options_.capacity_rows = 128;
  Make();
  Append(1, 0, 200);
  const double mass = table_->Describe().mass();
  EXPECT_EQ(SetPriority(FirstRowId(3), 9).unknown, 1);  // its block was evicted
  EXPECT_EQ(SetPriority(7, 9).unknown, 1);
  EXPECT_EQ(SetPriority(FirstRowId(199), 9).unknown, 1);  // its window is not complete
  EXPECT_EQ(table_->Describe().mass(), mass);
  EXPECT_EQ(table_->Describe().priorities_unknown(), 3);
}

TEST_F(TableTest, PrioritiesThatAreNoneAreRefusedAsAWhole) {
  options_.selector = proto::PRIORITIZED;
  Make();
  Append(1, 0, 10);
  const double mass = table_->Describe().mass();
  for (const float bad : {-1.0f, std::nanf(""), 2e30f}) {
    proto::PriorityUpdates updates;
    for (const float priority : {4.0f, bad}) {
      updates.add_row_ids(FirstRowId(0));
      updates.add_priorities(priority);
    }
    EXPECT_EQ(table_->UpdatePriorities(updates).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(table_->Describe().mass(), mass);
}

TEST_F(TableTest, ATableThatNeverEvictsRefusesWhatDoesNotFitAsAWhole) {
  options_.never_evict = true;
  options_.capacity_rows = 192;
  Make();
  Append(1, 0, 128);
  Append(2, 0, 60);
  const std::string tail = Rows(2, 60, 5);
  const absl::Status full = table_->Append({{2, 60, tail}}, 0, false).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(full.message(), testing::HasSubstr("full and never evicts: 188 of 192"));
  EXPECT_EQ(table_->Held({2})[0].held_rows(), 60);
  Append(2, 60, 4);
  EXPECT_EQ(table_->Describe().rows_evicted(), 0);
}

TEST_F(TableTest, PreloadedWindowsAreCountedApart) {
  Make();
  const std::string rows = Rows(1, 0, 10);
  ASSERT_TRUE(table_->Append({{1, 0, rows}}, 0, true).ok());
  EXPECT_EQ(table_->Describe().counts().preloaded(), 9);
  EXPECT_EQ(table_->Describe().counts().inserted(), 0);
}

TEST_F(TableTest, ALogMadeForAnotherKindOfSelectorIsRefused) {
  Make();
  Append(1, 0, 10);
  options_.selector = proto::PRIORITIZED;
  table_.reset();
  const absl::Status status = Table::Make(options_, &scheduler_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), testing::HasSubstr("without priorities"));
}

}  // namespace
}  // namespace troupe
