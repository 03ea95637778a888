// Every row once and in order: a table and its followers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "replay_server/wire.h"
#include "tests/unit/replay_server/followed_rows.h"
#include "tests/unit/replay_server/table_fixture.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class FollowTest : public TableFixture {
 protected:
  void Append(uint64_t stream, uint64_t count) {
    const uint64_t first = table_->Held({stream})[0].held_rows();
    const std::string rows = Rows(stream, first, count);
    ASSERT_TRUE(table_->Append({{stream, first, rows}}, 0, false).ok());
  }
  // Begins to follow where the model is.
  absl::Status Follow() { return Follow(model_.Position()); }
  absl::Status Follow(const proto::FollowRequest& request) {
    absl::StatusOr<std::unique_ptr<Follower>> follower = Follower::Make(request);
    if (!follower.ok()) return follower.status();
    follower_ = *std::move(follower);
    return table_->StartFollowing(follower_);
  }
  // Takes one reply, through the wire; false if it is empty.
  bool Take() {
    FollowBatch batch;
    const bool has_rows = table_->FollowOrWait(follower_, waiter_, &batch);
    grpc::ByteBuffer bytes = EncodeFollowReply(&batch);
    EXPECT_LE(bytes.Length(), kFollowChunkBytes + 160);
    proto::FollowReply reply;
    EXPECT_TRUE(DecodeMessage(&bytes, &reply).ok());
    EXPECT_EQ(reply.runs_size() > 0, has_rows);
    model_.Add(reply);
    rows_missed_ = reply.rows_missed();
    env_steps_ = reply.counts().env_steps();
    return has_rows;
  }
  void TakeAll() {
    while (Take()) {
    }
  }

  FollowerPtr follower_;
  const WaiterPtr waiter_ = std::make_shared<Waiter>(Waiter{.wake = [] {}});
  FollowedRowsModel model_;
  uint64_t rows_missed_ = 0;
  uint64_t env_steps_ = 0;
};

TEST_F(FollowTest, RowsOfOpenBlocksComeBeforeNewBlocks) {
  Make();
  Append(1, 10);
  Append(2, 100);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  EXPECT_EQ(model_.rows(), 110);
  Append(1, 100);
  Append(2, 1);
  TakeAll();
  EXPECT_EQ(model_.next_row(1), 110);
  EXPECT_EQ(model_.next_row(2), 101);
  EXPECT_EQ(rows_missed_, 0);
  EXPECT_EQ(env_steps_, 211);
}

TEST_F(FollowTest, WhatTheRingGaveUpUnsentIsCountedToTheRow) {
  Make();
  Append(1, 10);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  Append(1, 20);    // of the open block, never sent
  Append(2, 1000);  // turns the ring of eight blocks twice
  TakeAll();
  EXPECT_EQ(model_.rows() + rows_missed_, 1030);
  EXPECT_EQ(model_.next_row(1), 10);
  EXPECT_EQ(model_.next_row(2), 1000);
  EXPECT_GE(rows_missed_, 20 + 1000 - 512);
}

TEST_F(FollowTest, AFollowerThatComesLateIsToldWhatWasEvictedBefore) {
  Make();
  Append(1, 100);
  Append(2, 1000);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  EXPECT_EQ(model_.rows() + rows_missed_, 1100);
  EXPECT_GT(rows_missed_, 0);
}

TEST_F(FollowTest, APositionIsTakenUpAfterARestart) {
  Make();
  Append(1, 10);
  Append(2, 70);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  Append(1, 5);
  Append(3, 3);
  Make();
  Append(2, 60);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  EXPECT_EQ(model_.rows(), 148);
  EXPECT_EQ(rows_missed_, 0);
}

TEST_F(FollowTest, OfBlocksEvictedWhileNobodyFollowedTheMissedRowsAreNoFewerThanThereWere) {
  Make();
  Append(1, 10);
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  table_->StopFollowing(follower_, waiter_);
  Append(1, 5);
  Append(2, 2000);
  Make();
  ASSERT_TRUE(Follow().ok());
  TakeAll();
  EXPECT_GE(model_.rows() + rows_missed_, 2015);
  EXPECT_LE(model_.rows() + rows_missed_, 2015 + 64 + 10);
}

TEST_F(FollowTest, ALongBacklogComesInRepliesOfLimitedSize) {
  options_.capacity_rows = 200'000;
  Make();
  for (uint64_t stream = 1; stream <= 500; ++stream) Append(stream, 1);
  Append(1000, 50'000);
  ASSERT_TRUE(Follow().ok());
  int replies = 0;
  while (Take()) ++replies;
  EXPECT_GE(replies, 50'500 * 32 / kFollowChunkBytes);
  for (uint64_t stream = 1; stream <= 500; ++stream) Append(stream, 70);
  TakeAll();
  EXPECT_EQ(model_.rows(), 50'500 + 500 * 70);
}

TEST_F(FollowTest, ATableThatIsNotOpenHasNothingYet) {
  absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(options_, &scheduler_);
  ASSERT_TRUE(table.ok());
  table_ = *std::move(table);
  ASSERT_TRUE(Follow().ok());
  EXPECT_FALSE(Take());
  ASSERT_TRUE(table_->Open("run", TestLayout()).ok());
  Append(1, 3);
  TakeAll();
  EXPECT_EQ(model_.rows(), 3);
}

TEST_F(FollowTest, PositionsOfNoLogAreRefusedAsMalformed) {
  struct Case {
    uint64_t next_block;
    std::vector<std::pair<uint64_t, uint32_t>> partial;
    const char* why;
  };
  const std::vector<Case> cases = {
      {~uint64_t{0}, {}, "next_block is 18446744073709551615"},
      {3, {{3, 1}}, "no partial block before 3"},
      {3, {{~uint64_t{0}, 1}}, "no partial block before 3"},
      {3, {{0, 1}}, "no partial block"},
      {3, {{2, 64}}, "64 rows of block 2"},
      {3, {{2, ~uint32_t{0}}}, "4294967295 rows of block 2"},
      {3, {{2, 1}, {2, 1}}, "twice"},
      {3, std::vector<std::pair<uint64_t, uint32_t>>((1 << 18) + 1, {1, 1}), "at most 262144"},
  };
  for (const Case& c : cases) {
    proto::FollowRequest request;
    request.set_next_block(c.next_block);
    for (const auto& [block, rows] : c.partial) {
      request.add_partial()->set_block(block);
      request.mutable_partial()->rbegin()->set_rows(rows);
    }
    const absl::Status status = Follower::Make(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.why;
    EXPECT_THAT(status.message(), HasSubstr(c.why));
  }
}

TEST_F(FollowTest, APositionAheadOfTheLogOrWithHolesIsRefused) {
  Make();
  Append(1, 70);
  const auto status_of = [&](uint64_t next_block, std::vector<std::pair<uint64_t, uint32_t>> list) {
    proto::FollowRequest request;
    request.set_next_block(next_block);
    for (const auto& [block, rows] : list) {
      request.add_partial()->set_block(block);
      request.mutable_partial()->rbegin()->set_rows(rows);
    }
    return Follow(request);
  };
  EXPECT_THAT(status_of(4, {}).message(), HasSubstr("the newest here is 2"));
  EXPECT_THAT(status_of(3, {{2, 7}}).message(), HasSubstr("7 rows of block 2, which holds 6"));
  EXPECT_THAT(status_of(3, {}).message(), HasSubstr("64 rows of block 2, which holds 6"));
  EXPECT_TRUE(status_of(3, {{2, 6}}).ok());
  EXPECT_TRUE(status_of(3, {{1, 0}, {2, 0}}).ok());
}

// Blocks are overwritten while they are copied out, unless they are pinned.
TEST_F(FollowTest, FollowedRowsAreWholeWhileTheRingTurnsUnderThem) {
  options_.capacity_rows = 192;
  Make();
  ASSERT_TRUE(Follow().ok());
  std::thread writer([this] {
    for (int i = 0; i < 3000; ++i) Append(1 + i % 2, 30);
  });
  while (model_.rows() + rows_missed_ < 90'000) Take();
  writer.join();
  EXPECT_EQ(model_.rows() + rows_missed_, 90'000);
}

// Any mixture of appends, replies, breaks and restarts.
TEST_F(FollowTest, WhateverHappensNothingComesTwiceAndNothingHeldIsLeftOut) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    options_.path = dir_.File("rows" + std::to_string(round));
    options_.capacity_rows = 64 * (4 + random() % 300);
    model_ = {};
    Make();
    ASSERT_TRUE(Follow().ok());
    std::map<uint64_t, uint64_t> appended;
    uint64_t newest_stream = 9;
    std::vector<uint64_t> streams = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    const auto append = [&] {
      uint64_t& stream = streams[random() % streams.size()];
      // One whose rows were all evicted is forgotten by a restart.
      if (table_->Held({stream})[0].held_rows() < appended[stream]) stream = ++newest_stream;
      const uint64_t count = 1 + random() % 100;
      Append(stream, count);
      appended[stream] += count;
    };
    for (int step = 0; step < 200; ++step) {
      switch (random() % 16) {
        case 0:
          Make();
          ASSERT_TRUE(Follow().ok());
          break;
        case 1:
          table_->StopFollowing(follower_, waiter_);
          append();
          ASSERT_TRUE(Follow().ok());
          break;
        case 2:
        case 3:
          Take();
          break;
        default:
          append();
      }
    }
    TakeAll();
    table_ = nullptr;
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(options_.path);
    ASSERT_TRUE(log.ok());
    for (const uint32_t block : (*log)->BlocksByAge()) {
      for (uint32_t i = 0; i < (*log)->row_count(block); ++i) {
        const uint64_t row = (*log)->first_row(block) + i;
        EXPECT_TRUE(model_.Has((*log)->stream(block), row)) << "row " << row;
      }
    }
  }
}

}  // namespace
}  // namespace troupe
