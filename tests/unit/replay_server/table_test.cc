#include "replay_server/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>
#include <vector>

#include "common/version.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

class TableTest : public ::testing::Test {
 protected:
  TableTest() {
    options_.name = "replay";
    options_.path = dir_.File("rows");
    options_.capacity_rows = 512;
  }

  // Makes the table, anew if there is one: a restart.
  void Make() {
    table_ = nullptr;
    absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(options_, &scheduler_);
    ASSERT_TRUE(table.ok()) << table.status();
    table_ = *std::move(table);
    ASSERT_TRUE(table_->Open("run", TestLayout()).ok());
  }
  void Append(uint64_t stream, uint64_t first, uint64_t count,
              const std::set<uint64_t>& finals = {}, uint64_t policy_version = 0,
              uint64_t newest_version = 0) {
    const std::string rows = Rows(stream, first, count, finals, policy_version);
    const RowRunView run = {stream, first, rows};
    const auto acks = table_->Append({run}, newest_version);
    ASSERT_TRUE(acks.ok()) << acks.status();
    EXPECT_EQ((*acks)[0].held_rows(), first + count);
  }
  bool Sample(uint64_t n, SampleBatch* batch) {
    const auto waiter = std::make_shared<Waiter>();
    const bool sampled = table_->SampleOrWait({n, 0}, waiter, batch);
    table_->Forget(waiter);
    return sampled;
  }
  // Row numbers of the first rows of a batch of windows.
  std::vector<uint64_t> FirstRows(const SampleBatch& batch) const {
    std::vector<uint64_t> rows;
    for (size_t i = 0; i < batch.row_ids.size(); ++i) {
      rows.push_back(RowAt(batch.windows.data(), i * options_.window.length).row);
    }
    return rows;
  }

  TempDir dir_;
  TableOptions options_;
  Scheduler scheduler_;
  std::unique_ptr<Table> table_;
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
  EXPECT_EQ(table_->Counts().mass, 0);
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
  options_.rate_limiter.queue_length = 100;
  Make();
  const auto writer = std::make_shared<Waiter>();
  Append(1, 0, 101);
  EXPECT_FALSE(table_->AdmitWriterOrWait(writer));
  table_->Forget(writer);
  Append(1, 101, 28);  // evicts the first 64 rows: 64 windows are left
  EXPECT_TRUE(table_->AdmitWriterOrWait(writer));
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
  options_.rate_limiter.min_size = 10;
  options_.rate_limiter.samples_per_insert = 1;
  options_.rate_limiter.slack = 30;
  Make();
  const auto writer = std::make_shared<Waiter>();
  // The union may insert 10 + 30 windows; half of that is this shard's.
  Append(1, 0, 21);  // 20 windows
  EXPECT_TRUE(table_->AdmitWriterOrWait(writer));
  Append(1, 21, 1);
  EXPECT_FALSE(table_->AdmitWriterOrWait(writer));
  EXPECT_THAT(table_->Describe().writers_wait_for(), testing::HasSubstr("this shard's part"));
  // Of the 19 that are left, the other shard has used 9: half of the rest is 5.
  table_->NoteOthers(9, 0);
  EXPECT_TRUE(table_->AdmitWriterOrWait(writer));
  Append(1, 22, 5);
  EXPECT_TRUE(table_->AdmitWriterOrWait(writer));
  Append(1, 27, 1);
  EXPECT_FALSE(table_->AdmitWriterOrWait(writer));
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
  EXPECT_TRUE(table_->Append({{1, 0, rows}, {1, 10, more}}, 0).ok());
  EXPECT_EQ(table_->Held({1})[0].held_rows(), 15);
}

TEST_F(TableTest, ARowNumberNearTheEndOfNumbersIsRefused) {
  Make();
  const std::string rows = Rows(1, 0, 2);
  EXPECT_EQ(table_->Append({{1, ~uint64_t{0}, rows}}, 0).status().code(),
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
      const uint64_t first = RowAt(batch.windows.data(), window * 40).row;
      for (uint64_t k = 0; k < 40; ++k) {
        ASSERT_EQ(RowAt(batch.windows.data(), window * 40 + k).row, first + k);
      }
    }
  }
  writer.join();
}

}  // namespace
}  // namespace troupe
