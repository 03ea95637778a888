// What a replica holds, against the windows of a shard's table and against a model of made-up rows.
#include "learner/replica_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "learner/ram_replica_store.h"
#include "replay_server/table.h"
#include "replay_server/wire.h"
#include "tests/unit/replay_server/rows.h"
#include "tests/unit/replica/made_up_rows.h"

namespace troupe {
namespace {

// A replica in RAM that fails the test when a row or a transition that may be drawn is overwritten.
class CheckedStore final : public ReplicaStore {
 public:
  explicit CheckedStore(const ReplicaShape& shape) : ram_(shape) {}

  const RamReplicaStore& ram() const { return ram_; }
  const ReplicaShape& shape() const override { return ram_.shape(); }
  absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) override {
    const uint64_t end = first_slot + rows.size() / shape().row_floats();
    EXPECT_EQ(rows.size() % shape().row_floats(), 0);
    EXPECT_LE(end, shape().capacity);
    for (uint64_t number = ram_.tail(); number < ram_.head(); ++number) {
      for (const uint32_t slot :
           {ram_.transition(number).state_slot, ram_.transition(number).next_slot}) {
        EXPECT_FALSE(slot >= first_slot && slot < end) << "transition " << number;
      }
    }
    return ram_.WriteRows(first_slot, rows);
  }
  absl::Status WriteTransitions(uint64_t first_number,
                                absl::Span<const ReplicaTransition> transitions) override {
    EXPECT_EQ(first_number, ram_.head());
    EXPECT_LE(first_number + transitions.size(), ram_.tail() + shape().capacity);
    return ram_.WriteTransitions(first_number, transitions);
  }
  absl::Status SetRange(uint64_t tail, uint64_t head) override {
    EXPECT_LE(ram_.tail(), tail);
    EXPECT_LE(tail, head);
    return ram_.SetRange(tail, head);
  }

 private:
  RamReplicaStore ram_;
};

class ReplicaBuilderTest : public ::testing::Test {
 protected:
  void Make() {
    const ReplicaShape shape = ReplicaBuilder::ShapeFor(MadeUpLayout(), options_).value();
    store_ = std::make_unique<CheckedStore>(shape);
    builder_ = ReplicaBuilder::Create(MadeUpLayout(), options_, store_.get()).value();
  }
  void Add(uint64_t stream, uint64_t first, uint64_t count) {
    ASSERT_TRUE(builder_->Add(stream, first, MadeUpRows(stream, first, count)).ok());
  }
  // What can be drawn; nothing of it twice.
  std::set<MadeUpTransition> Drawable() {
    EXPECT_TRUE(builder_->Flush().ok());
    const RamReplicaStore& ram = store_->ram();
    EXPECT_EQ(ram.head() - ram.tail(), builder_->size());
    std::set<MadeUpTransition> all;
    for (uint64_t number = ram.tail(); number < ram.head(); ++number) {
      const ReplicaTransition& t = ram.transition(number);
      const float* const state = ram.row(t.state_slot);
      const float* const next = ram.row(t.next_slot);
      EXPECT_EQ(state[0], next[0]);
      const auto whole = [](float x) { return static_cast<uint64_t>(x); };
      const bool is_new = all.emplace(whole(state[0]), whole(state[1]), whole(next[1]), state[2],
                                      t.reward, t.discount)
                              .second;
      EXPECT_TRUE(is_new) << "stream " << state[0] << ", row " << state[1];
    }
    return all;
  }
  MadeUpTransition Window(uint64_t stream, uint64_t row) const {
    return MadeUpWindow(stream, row, options_.n_step, options_.gamma);
  }

  ReplicaBuilder::Options options_ = {.n_step = 1, .gamma = 0.9, .capacity_rows = 100'000};
  std::unique_ptr<CheckedStore> store_;
  std::unique_ptr<ReplicaBuilder> builder_;
};

// A shard's table, and what follows it.
class FollowedTable final {
 public:
  FollowedTable(const std::string& path, const ReplicaBuilder::Options& rule, uint64_t capacity) {
    options_.name = "replay";
    options_.path = path;
    options_.capacity_rows = capacity;
    options_.window = {.length = static_cast<uint32_t>(rule.n_step + 1),
                       .stride = static_cast<uint32_t>(rule.window_stride),
                       .start_at_final_rows = rule.start_at_final_rows};
    options_.selector = proto::FIFO;
    options_.max_times_sampled = 1;
    table_ = Table::Make(options_, &scheduler_).value();
    EXPECT_TRUE(table_->Open("run", MadeUpLayout()).ok());
    Follow();
  }

  // From the beginning.
  void Follow() {
    if (follower_ != nullptr) table_->StopFollowing(follower_, waiter_);
    follower_ = *Follower::Make({});
    EXPECT_TRUE(table_->StartFollowing(follower_).ok());
  }
  void Append(uint64_t stream, uint64_t count) {
    const uint64_t first = table_->Held({stream})[0].held_rows();
    const std::string rows = MadeUpRows(stream, first, count);
    EXPECT_TRUE(table_->Append({{stream, first, rows}}, 0, false).ok());
  }
  // One reply; false if there is nothing new.
  bool TakeInto(ReplicaBuilder* builder) {
    FollowBatch batch;
    const bool has_rows = table_->FollowOrWait(follower_, waiter_, &batch);
    grpc::ByteBuffer bytes = EncodeFollowReply(&batch);
    proto::FollowReply reply;
    EXPECT_TRUE(DecodeMessage(&bytes, &reply).ok());
    for (const proto::FollowedRows& run : reply.runs()) {
      EXPECT_TRUE(builder->Add(run.stream(), run.first_row(), run.rows()).ok());
    }
    return has_rows;
  }
  // First rows of all windows that can be selected.
  std::set<std::pair<uint64_t, uint64_t>> Windows() {
    SampleBatch batch;
    table_->FillCounts(&batch);
    const SampleQuery query = {.num_windows = static_cast<uint32_t>(batch.num_windows)};
    std::set<std::pair<uint64_t, uint64_t>> windows;
    if (query.num_windows == 0) return windows;
    EXPECT_TRUE(table_->SampleOrWait(query, waiter_, &batch));
    std::vector<uint8_t> bytes(batch.windows.size_bytes());
    batch.windows.MoveTo(bytes.data());
    const Layout layout = MadeUpLayout();
    const int64_t offset = layout.Find(kObservation)->offset_bytes;
    for (uint32_t i = 0; i < query.num_windows; ++i) {
      float who[2];
      std::memcpy(who, &bytes[i * options_.window.length * layout.stride_bytes() + offset],
                  sizeof(who));
      windows.emplace(static_cast<uint64_t>(who[0]), static_cast<uint64_t>(who[1]));
    }
    EXPECT_EQ(windows.size(), query.num_windows);
    return windows;
  }

 private:
  TableOptions options_;
  Scheduler scheduler_;
  std::unique_ptr<Table> table_;
  FollowerPtr follower_;
  const WaiterPtr waiter_ = std::make_shared<Waiter>(Waiter{.wake = [] {}});
};

// Of any rule, in any order of rows; also if the table is followed anew in between.
TEST_F(ReplicaBuilderTest, TheTransitionsAreTheWindowsOfTheTable) {
  const TempDir dir;
  std::mt19937_64 random(3);
  for (int round = 0; round < 40; ++round) {
    options_.n_step = 1 + static_cast<int64_t>(random() % (round % 2 == 0 ? 3 : 90));
    options_.window_stride = round % 3 == 0 ? 1 + static_cast<int64_t>(random() % 5) : 1;
    options_.start_at_final_rows = round % 4 == 0;
    Make();
    FollowedTable table(dir.File(std::to_string(round)), options_, 50'000);
    for (int step = 0; step < 150; ++step) {
      if (random() % 3 != 0) {
        table.Append(random() % 7, 1 + random() % 100);
      } else if (random() % 20 == 0) {
        table.Follow();
      } else {
        table.TakeInto(builder_.get());
      }
      if (random() % 10 == 0) {
        EXPECT_TRUE(builder_->Flush().ok());
      }
    }
    while (table.TakeInto(builder_.get())) {
    }
    std::set<MadeUpTransition> expected;
    for (const auto& [stream, row] : table.Windows()) expected.insert(Window(stream, row));
    EXPECT_GT(expected.size(), 100);
    EXPECT_EQ(Drawable(), expected) << "round " << round;
  }
}

TEST_F(ReplicaBuilderTest, WhatARingGivesUpIsGoneAndWhatTheShardHoldsIsThere) {
  const TempDir dir;
  std::mt19937_64 random(4);
  for (int round = 0; round < 20; ++round) {
    options_.n_step = 1 + static_cast<int64_t>(random() % 6);
    options_.capacity_rows = 2 * 64 * (3 + random() % 20);
    Make();
    // Of a slow stream's block the ring keeps rows that are older than its capacity.
    FollowedTable table(dir.File(std::to_string(round)), options_, options_.capacity_rows / 2);
    for (int step = 0; step < 600; ++step) {
      table.Append(random() % 4, 1 + random() % 100);
      while (table.TakeInto(builder_.get())) {
      }
      if (step % 100 != 0) continue;
      const std::set<MadeUpTransition> drawable = Drawable();
      for (const MadeUpTransition& t : drawable) {
        EXPECT_EQ(t, Window(std::get<0>(t), std::get<1>(t)));
      }
      EXPECT_LE(drawable.size(), store_->shape().capacity);
    }
    const std::set<MadeUpTransition> drawable = Drawable();
    for (const auto& [stream, row] : table.Windows()) {
      EXPECT_TRUE(drawable.contains(Window(stream, row))) << "stream " << stream << " row " << row;
    }
  }
}

TEST_F(ReplicaBuilderTest, WindowsOfTheNewestRowsUpToTheCapacityCanAllBeDrawn) {
  options_.capacity_rows = 3000;
  options_.n_step = 3;
  Make();
  for (uint64_t row = 0; row < 50'000; row += 50) {
    Add(1, row, 50);
    Add(2, row, 50);
  }
  const std::set<MadeUpTransition> drawable = Drawable();
  for (uint64_t row = 50'000 - 1500; row < 50'000 - 3; ++row) {
    for (const uint64_t stream : {1, 2}) {
      if (IsFinal(MadeUpFlags(stream, row))) continue;
      ASSERT_TRUE(drawable.contains(Window(stream, row))) << row;
    }
  }
}

TEST_F(ReplicaBuilderTest, AWindowAcrossAPauseIsThereThoughItsFirstRowsWereOverwritten) {
  options_.capacity_rows = 1000;
  options_.n_step = 4;
  Make();
  Add(1, 0, 10);
  for (uint64_t row = 0; row < 700; ++row) Add(2, row, 1);
  Add(1, 10, 4);
  EXPECT_EQ(builder_->rows_copied(), 4);
  Add(2, 700, 800);
  const std::set<MadeUpTransition> drawable = Drawable();
  for (uint64_t row = 6; row < 10; ++row) {
    EXPECT_EQ(drawable.contains(Window(1, row)), !IsFinal(MadeUpFlags(1, row)));
  }
}

TEST_F(ReplicaBuilderTest, RowsAfterAGapBeginNoWindowWithThoseBefore) {
  options_.n_step = 2;
  Make();
  Add(1, 0, 20);
  Add(1, 21, 20);
  for (const MadeUpTransition& t : Drawable()) {
    EXPECT_TRUE(std::get<1>(t) + 2 < 20 || std::get<1>(t) >= 21) << std::get<1>(t);
  }
}

TEST_F(ReplicaBuilderTest, RowsThatComeAgainAreLeftOut) {
  Make();
  Add(1, 0, 20);
  Add(1, 5, 10);
  Add(1, 10, 20);
  EXPECT_EQ(builder_->rows_duplicate(), 20);
  EXPECT_EQ(builder_->rows(), 30);
  Drawable();
}

TEST_F(ReplicaBuilderTest, AReplicaThatCannotBeNumberedIsRefused) {
  options_.capacity_rows = uint64_t{1} << 32;
  EXPECT_EQ(ReplicaBuilder::ShapeFor(MadeUpLayout(), options_).status().code(),
            absl::StatusCode::kResourceExhausted);
  options_.capacity_rows = ~uint64_t{0};
  EXPECT_EQ(ReplicaBuilder::ShapeFor(MadeUpLayout(), options_).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(ReplicaBuilderTest, ALayoutThatSacCannotLearnFromIsRefusedByItsColumn) {
  const absl::Status status = ReplicaBuilder::ShapeFor(TestLayout(), options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("observation"));
}

TEST_F(ReplicaBuilderTest, DrawsAreUniformAndFollowFromTheSeed) {
  Make();
  Add(1, 0, 300);
  ASSERT_TRUE(builder_->Flush().ok());
  constexpr int kDraws = 200'000;
  std::vector<float> s(2 * kDraws), a(kDraws), r(kDraws), discount(kDraws), next(2 * kDraws);
  const TransitionArrays to = {s.data(), a.data(), r.data(), discount.data(), next.data()};
  store_->ram().Draw(kDraws, 7, to);
  std::map<uint64_t, int> times;
  for (int i = 0; i < kDraws; ++i) {
    const auto row = static_cast<uint64_t>(s[2 * i + 1]);
    ++times[row];
    const MadeUpTransition drawn = {1,    row,  static_cast<uint64_t>(next[2 * i + 1]),
                                    a[i], r[i], discount[i]};
    ASSERT_EQ(drawn, Window(1, row));
  }
  EXPECT_EQ(times.size(), builder_->size());
  const double expected = static_cast<double>(kDraws) / static_cast<double>(builder_->size());
  double chi_squared = 0;
  for (const auto& [row, count] : times) {
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  const auto freedom = static_cast<double>(builder_->size() - 1);
  EXPECT_LT(chi_squared, freedom + 5 * std::sqrt(2 * freedom));
  const std::vector<float> before = s;
  store_->ram().Draw(kDraws, 7, to);
  EXPECT_EQ(s, before);
  store_->ram().Draw(kDraws, 8, to);
  EXPECT_NE(s, before);
}

}  // namespace
}  // namespace troupe
