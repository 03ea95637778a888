#ifndef TROUPE_TESTS_UNIT_CLIENT_ROW_WRITER_FIXTURE_H_
#define TROUPE_TESTS_UNIT_CLIENT_ROW_WRITER_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "actor/row_writer.h"
#include "tests/unit/client/fake_shard.h"

// For a lambda that FakeShardState calls under its lock.
#define LOCKED ABSL_NO_THREAD_SAFETY_ANALYSIS

namespace troupe {

using testing::FakeShard;
using testing::FakeShardState;

inline constexpr int64_t kStride = 24;

inline absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

// A writer with the small layout, whose row number n of environment e has reward 1000 e + n.
class RowWriterTest : public ::testing::Test {
 protected:
  RowWriterTest() { options_.shards = {first_.target(), second_.target()}; }

  static RowWriterOptions Options() {
    RowWriterOptions options;
    options.run = "test";
    options.table = "replay";
    options.num_envs = 2;
    options.message_bytes = 10 * kStride;
    options.max_unacked_bytes = 1000 * kStride;
    options.max_delay = absl::Milliseconds(1);
    options.reconnect_min = absl::Milliseconds(1);
    options.reconnect_max = absl::Milliseconds(20);
    options.move_after = absl::Hours(1);
    return options;
  }

  void Start() {
    auto writer = RowWriter::Create(options_, *Layout::FromProto(testing::SmallLayout()));
    ASSERT_TRUE(writer.ok()) << writer.status();
    writer_ = *std::move(writer);
    next_.assign(options_.num_envs, 0);
  }

  absl::Status Append(int64_t env) {
    const auto appended = writer_->Append(env, [&](absl::Span<char> row) {
      ASSERT_EQ(row.size(), kStride);
      const double reward = 1000.0 * env + static_cast<double>(next_[env]++);
      std::memcpy(row.data() + sizeof(RowHeader), &reward, sizeof(reward));
    });
    return appended.status();
  }

  void AppendRows(int64_t rows_per_env) {
    for (int64_t i = 0; i < rows_per_env; ++i) {
      for (int64_t env = 0; env < options_.num_envs; ++env) ASSERT_TRUE(Append(env).ok());
    }
  }

  // All rewards that the shard holds, sorted.
  static std::vector<double> Rewards(FakeShard& shard) {
    std::vector<double> rewards;
    shard.state().Set([&](FakeShardState& state) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      for (const auto& [id, rows] : state.streams) {
        for (size_t at = sizeof(RowHeader); at < rows.size(); at += kStride) {
          double reward = 0;
          std::memcpy(&reward, rows.data() + at, sizeof(reward));
          rewards.push_back(reward);
        }
      }
    });
    std::sort(rewards.begin(), rewards.end());
    return rewards;
  }

  std::vector<double> Appended() const {
    std::vector<double> rewards;
    for (size_t env = 0; env < next_.size(); ++env) {
      for (int64_t n = 0; n < next_[env]; ++n) rewards.push_back(1000.0 * env + n);
    }
    return rewards;
  }

  static void Await(FakeShard& shard, const std::function<bool(const FakeShardState&)>& what) {
    ASSERT_TRUE(shard.state().Await(what));
  }
  static void Script(FakeShard& shard, const std::function<void(FakeShardState&)>& change) {
    shard.state().Set(change);
  }

  void AwaitAcked(int64_t rows) {
    while (writer_->stats().rows_acked < rows) std::this_thread::yield();
  }

  FakeShard first_;
  FakeShard second_;
  RowWriterOptions options_ = Options();
  std::vector<int64_t> next_;
  std::unique_ptr<RowWriter> writer_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_CLIENT_ROW_WRITER_FIXTURE_H_
