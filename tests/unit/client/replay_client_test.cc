#include "common/replay_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <thread>
#include <tuple>

#include "absl/strings/match.h"
#include "tests/unit/client/fake_shard.h"

namespace troupe {
namespace {

using testing::FakeShard;
using testing::FakeShardState;
using ::testing::HasSubstr;

#define LOCKED ABSL_NO_THREAD_SAFETY_ANALYSIS

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }
absl::Time Shortly() { return absl::Now() + absl::Milliseconds(100); }

// Two shards, the first with a mass of 300 windows, the second with 100.
class ReplayClientTest : public ::testing::Test {
 protected:
  ReplayClientTest() {
    Fill(first_, 300);
    Fill(second_, 100);
    options_.shards = {first_.target(), second_.target()};
    options_.run = "test";
    options_.table = "replay";
    options_.batch_size = 64;
    options_.prefetch_batches = 4;
    options_.reconnect_min = absl::Milliseconds(1);
    options_.reconnect_max = absl::Milliseconds(20);
  }

  static void Fill(FakeShard& shard, int64_t windows) {
    Script(shard, [&](FakeShardState& s) LOCKED {
      s.layout = testing::SmallLayout();
      s.inserted += windows;
      s.mass += static_cast<double>(windows);
    });
  }
  static void Script(FakeShard& shard, const std::function<void(FakeShardState&)>& change) {
    shard.state().Set(change);
  }
  static void Await(FakeShard& shard, const std::function<bool(const FakeShardState&)>& what) {
    ASSERT_TRUE(shard.state().Await(what));
  }

  void Create() {
    auto client = ReplayClient::Create(options_);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  void Start() {
    Create();
    const auto table = client_->WaitForTable(Soon());
    ASSERT_TRUE(table.ok()) << table.status();
  }

  // The next batch, every window of which is checked to be what its id says.
  WindowBatch Next() {
    auto batch = client_->NextBatch(Soon());
    EXPECT_TRUE(batch.ok()) << batch.status();
    if (!batch.ok()) return {};
    EXPECT_EQ(batch->num_windows, options_.batch_size);
    EXPECT_EQ(batch->window_bytes(), 48);
    for (int64_t i = 0; i < batch->num_windows; ++i) {
      const auto expected = static_cast<uint8_t>(batch->buffer->row_ids[i]);
      EXPECT_EQ(batch->row(i, 0)[0], expected);
      EXPECT_EQ(batch->row(i, 1)[23], expected);
    }
    return *std::move(batch);
  }

  int64_t CountFrom(int32_t shard, int num_batches) {
    int64_t count = 0;
    for (int i = 0; i < num_batches; ++i) {
      const WindowBatch batch = Next();
      for (const int32_t each : batch.buffer->shards) count += each == shard;
    }
    return count;
  }

  FakeShard first_;
  FakeShard second_;
  ReplayClientOptions options_;
  std::unique_ptr<ReplayClient> client_;
};

TEST_F(ReplayClientTest, DescribesTheTableOnceAnActorHasConnected) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.layout.Clear();
    s.max_epoch = 7;
  });
  Script(second_, [](FakeShardState& s) LOCKED {
    s.layout.Clear();
    s.max_epoch = 3;
  });
  Create();
  const auto none = client_->WaitForTable(Shortly());
  EXPECT_EQ(none.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(none.status().message(), HasSubstr("waits for a first actor"));
  Fill(second_, 1);
  const auto table = client_->WaitForTable(Soon());
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->layout.stride_bytes(), 24);
  EXPECT_EQ(table->window_length, 2);
  EXPECT_EQ(table->max_epoch, 7);
  EXPECT_EQ(table->shards_reached, 2);
}

TEST_F(ReplayClientTest, AMissingTableIsAnErrorAtOnce) {
  options_.table = "other";
  Create();
  EXPECT_EQ(client_->WaitForTable(Soon()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ReplayClientTest, LayoutsThatDifferAreRefused) {
  Script(second_,
         [](FakeShardState& s) LOCKED { s.layout.mutable_columns(0)->set_dtype(proto::FLOAT32); });
  Create();
  const auto table = client_->WaitForTable(Soon());
  EXPECT_EQ(table.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(table.status().message(), HasSubstr("reward"));
}

TEST_F(ReplayClientTest, BatchesThatNoMachineCanHoldAreRefused) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.layout.mutable_columns(0)->add_shape(1 << 24);  // 128 MiB a row
  });
  Create();
  const absl::Status status = client_->WaitForTable(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("a batch of 64"));
}

TEST_F(ReplayClientTest, BatchesComeFromAllShardsByMass) {
  Start();
  const int64_t from_second = CountFrom(1, 200);
  // 12800 draws of probability 1/4: mean 3200, standard deviation 49.
  EXPECT_NEAR(from_second, 3200, 4 * 49);
  EXPECT_EQ(client_->stats().batches, 200);
}

TEST_F(ReplayClientTest, ProbabilitiesAreOverTheUnion) {
  Start();
  const WindowBatch batch = Next();
  for (const float probability : batch.buffer->probabilities) {
    EXPECT_FLOAT_EQ(probability, 1.0f / 400);
  }
}

TEST_F(ReplayClientTest, UnevenProbabilitiesAreOverTheUnionToo) {
  Script(first_, [](FakeShardState& s) LOCKED { s.weights = {0.5, 1.5}; });
  Start();
  const WindowBatch batch = Next();
  for (int64_t i = 0; i < batch.num_windows; ++i) {
    const bool odd = batch.buffer->row_ids[i] % 2 == 1;
    const float weight = batch.buffer->shards[i] == 1 ? 1.0f : odd ? 1.5f : 0.5f;
    EXPECT_FLOAT_EQ(batch.buffer->probabilities[i], weight / 400);
  }
}

TEST_F(ReplayClientTest, BuffersAreUsedAgain) {
  Start();
  for (int i = 0; i < 100; ++i) Next();
  EXPECT_LE(client_->stats().buffers, options_.prefetch_batches + 1);
}

TEST_F(ReplayClientTest, ABatchOutlivesItsClient) {
  Start();
  const WindowBatch batch = Next();
  client_.reset();
  EXPECT_EQ(batch.row(0, 0)[0], static_cast<uint8_t>(batch.buffer->row_ids[0]));
}

TEST_F(ReplayClientTest, ShortAnswersAreFilledUp) {
  Script(first_, [](FakeShardState& s) LOCKED {
    s.short_by = 5;
    s.num_short = 3;
  });
  Start();
  for (int i = 0; i < 10; ++i) Next();
  EXPECT_GE(client_->stats().redistributed, 15);
}

TEST_F(ReplayClientTest, AnAnswerOfTheWrongSizeBreaksTheSessionOnly) {
  Script(first_, [](FakeShardState& s) LOCKED { s.wrong_size = 1; });
  Start();
  for (int i = 0; i < 20; ++i) Next();
  EXPECT_GE(client_->stats().reconnects, 1);
}

TEST_F(ReplayClientTest, AMassThatIsNoNumberBreaksTheSession) {
  Script(first_,
         [](FakeShardState& s) LOCKED { s.mass = std::numeric_limits<double>::infinity(); });
  Start();
  EXPECT_EQ(CountFrom(0, 4), 0);
}

// It would hold the others back until the request times out, while another shard has some.
TEST_F(ReplayClientTest, AShardIsNotAskedForMoreWindowsThanItHasWhereEachIsSampledOnce) {
  for (auto& [shard, windows] : {std::pair(&first_, 3), std::pair(&second_, 1)}) {
    Script(*shard, [windows = windows](FakeShardState& s) LOCKED {
      s.mass = windows;
      s.answers = false;
    });
  }
  options_.batch_size = 1;
  options_.prefetch_batches = 8;
  options_.samples_once = true;
  options_.request_timeout = absl::Seconds(50);
  Start();
  absl::Status waits;
  do {
    waits = client_->NextBatch(absl::Now() + absl::Milliseconds(10)).status();
  } while (client_->stats().shards_up < 2 || !absl::StrContains(waits.message(), "asked for 3"));
  EXPECT_THAT(waits.message(), HasSubstr(first_.target() + " up, asked for 3"));
  EXPECT_THAT(waits.message(), HasSubstr(second_.target() + " up, asked for 1"));
  Fill(second_, 2);
  do {
    waits = client_->NextBatch(absl::Now() + absl::Milliseconds(10)).status();
  } while (!absl::StrContains(waits.message(), second_.target() + " up, asked for 3"));
}

TEST_F(ReplayClientTest, TheRateLimitHoldsOverTheUnion) {
  options_.rate_limit = {.min_size = 390, .samples_per_insert = 8, .slack = 80};
  Start();
  // 8 * (400 - 390) + 80 = 160 samples: two batches of 64 and no third.
  Next();
  Next();
  const auto starved = client_->NextBatch(Shortly());
  EXPECT_EQ(starved.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(
      starved.status().message(),
      HasSubstr("128 sampled + 64 wanted > 8 * (400 inserted - 390) + slack 80; 4 more inserts"));
  EXPECT_GT(client_->stats().starved, absl::ZeroDuration());
  Fill(second_, 4);  // 192 samples: a third
  Next();
  EXPECT_EQ(client_->NextBatch(Shortly()).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client_->counts().inserted, 404);
  EXPECT_EQ(client_->counts().sampled, 192);
}

TEST_F(ReplayClientTest, PreloadedWindowsOfAllShardsWarmUp) {
  options_.rate_limit = {.min_size = 1000, .samples_per_insert = 8, .slack = 80};
  Script(first_, [](FakeShardState& s) LOCKED { s.preloaded = 500; });
  Start();
  const auto starved = client_->NextBatch(Shortly());
  EXPECT_EQ(starved.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(starved.status().message(),
              HasSubstr("min_size: 400 of 1000 windows inserted and 500 preloaded; 100 more"));
  // 8 * (400 - (1000 - 610)) + 80 = 160 samples.
  Script(second_, [](FakeShardState& s) LOCKED { s.preloaded = 110; });
  Next();
  Next();
  EXPECT_EQ(client_->NextBatch(Shortly()).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client_->counts().preloaded, 610);
  Await(first_,
        [](const FakeShardState& s) LOCKED { return s.requests.back().others_preloaded() == 110; });
}

TEST_F(ReplayClientTest, ShardsWithoutWindowsAreNamedAsWhatIsWaitedFor) {
  for (FakeShard* shard : {&first_, &second_}) {
    Script(*shard, [](FakeShardState& s) LOCKED { s.mass = 0; });
  }
  Start();
  EXPECT_THAT(client_->NextBatch(Shortly()).status().message(),
              HasSubstr("no shard that is up has any window of the 400 inserted"));
}

TEST_F(ReplayClientTest, ANewInsertEndsTheWaitLongBeforeThePollTimesOut) {
  options_.rate_limit = {.min_size = 401};
  options_.request_timeout = absl::Seconds(50);
  Start();
  EXPECT_EQ(client_->NextBatch(Shortly()).status().code(), absl::StatusCode::kDeadlineExceeded);
  Await(first_, [](const FakeShardState& s) LOCKED { return s.polls >= 2; });
  Fill(first_, 1);
  const absl::Time start = absl::Now();
  Next();
  EXPECT_LT(absl::Now() - start, absl::Seconds(25));
}

TEST_F(ReplayClientTest, APollSaysHowManyWindowsAreLackedIfNoBatchFits) {
  Start();
  Next();
  const auto lacks = [](uint32_t windows) {
    return [windows](const FakeShardState& s) LOCKED {
      return std::any_of(s.requests.begin(), s.requests.end(), [&](const proto::SampleRequest& r) {
        return r.timeout_ms() > 0 && r.num_windows() == 0 && r.lacks_windows() == windows;
      });
    };
  };
  Await(first_, lacks(0));
  options_.rate_limit = {.min_size = 401};
  Start();
  EXPECT_FALSE(client_->NextBatch(Shortly()).ok());
  Await(first_, lacks(options_.batch_size));
}

TEST_F(ReplayClientTest, ShardsAreToldTheTotalsOfTheOthers) {
  Start();
  for (int i = 0; i < 5; ++i) Next();
  Script(first_, [](FakeShardState& s) LOCKED {
    for (const proto::SampleRequest& request : s.requests) {
      if (request.num_windows() > 0) {
        EXPECT_EQ(request.others_inserted(), 100);
      }
    }
  });
}

TEST_F(ReplayClientTest, NewPrioritiesReachTheShardsThatTheirWindowsCameFrom) {
  Start();
  std::map<uint64_t, float> expected[2];
  for (int n = 0; n < 20; ++n) {
    const WindowBatch batch = Next();
    std::vector<float> priorities(batch.num_windows);
    for (int64_t i = 0; i < batch.num_windows; ++i) {
      priorities[i] = static_cast<float>(1000 * n + i);
      expected[batch.buffer->shards[i]][batch.buffer->row_ids[i]] = priorities[i];
    }
    ASSERT_TRUE(
        client_->UpdatePriorities(batch.buffer->shards, batch.buffer->row_ids, priorities).ok());
  }
  // The last ones have no request to ride on.
  Await(first_, [&](const FakeShardState& s) LOCKED { return s.priorities == expected[0]; });
  Await(second_, [&](const FakeShardState& s) LOCKED { return s.priorities == expected[1]; });
  EXPECT_EQ(client_->stats().priorities_sent, 20 * 64);
  EXPECT_EQ(client_->stats().priorities_dropped, 0);
}

TEST_F(ReplayClientTest, ManyNewPrioritiesGoInSmallRequests) {
  Start();
  Next();
  std::vector<int32_t> shards(10'000, 1);
  std::vector<uint64_t> ids(10'000);
  std::vector<float> priorities(10'000);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = i / 2;  // the later one counts
    priorities[i] = static_cast<float>(i);
  }
  ASSERT_TRUE(client_->UpdatePriorities(shards, ids, priorities).ok());
  Await(second_, [&](const FakeShardState& s) LOCKED { return s.priorities.size() == 5000; });
  Script(second_, [&](FakeShardState& s) LOCKED {
    for (const auto& [id, priority] : s.priorities) EXPECT_EQ(priority, 2 * id + 1);
    for (const proto::SampleRequest& request : s.requests) {
      EXPECT_LE(request.ByteSizeLong(), 60'000u);
    }
  });
}

TEST_F(ReplayClientTest, NewPrioritiesOfAGoneShardAreDroppedAndCounted) {
  Start();
  Next();
  first_.Kill();
  while (client_->stats().shards_up > 1) Next();
  ASSERT_TRUE(client_->UpdatePriorities({0, 1, 0}, {5, 6, 7}, {1, 2, 3}).ok());
  Await(second_, [](const FakeShardState& s) LOCKED { return s.priorities.count(6) == 1; });
  EXPECT_EQ(client_->stats().priorities_dropped, 2);
  EXPECT_EQ(client_->stats().priorities_sent, 1);
}

TEST_F(ReplayClientTest, WrongPrioritiesAreRefusedBeforeTheyAreSent) {
  Start();
  Next();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [shard, priority, why] :
       {std::tuple(2, 1.0f, "shard 2: there are 2"), std::tuple(-1, 1.0f, "shard -1"),
        std::tuple(0, -1.0f, "priority -1 of window 7"), std::tuple(0, kNan, "nan"),
        std::tuple(0, 2e30f, "must be 0 to 1e+30")}) {
    const absl::Status status = client_->UpdatePriorities({0, shard}, {6, 7}, {1, priority});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(why));
  }
  EXPECT_EQ(client_->UpdatePriorities({0}, {6, 7}, {1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->stats().priorities_sent + client_->stats().priorities_dropped, 0);
}

TEST_F(ReplayClientTest, AGoneShardIsLeftOutAndComesBack) {
  Start();
  Next();
  first_.Kill();
  for (int i = 0; i < 20; ++i) Next();
  EXPECT_EQ(client_->stats().shards_up, 1);
  EXPECT_EQ(CountFrom(0, 5), 0);
  EXPECT_EQ(client_->counts().inserted, 400);  // the last known ones stay
  first_.Restart();
  while (CountFrom(0, 1) == 0) continue;
  EXPECT_EQ(client_->stats().shards_up, 2);
}

TEST_F(ReplayClientTest, WhatAGoneShardOwedIsDrawnFromTheOthers) {
  Script(first_, [](FakeShardState& s) LOCKED { s.answers = false; });
  options_.request_timeout = absl::Seconds(50);
  Start();
  std::thread killer([&] {
    EXPECT_TRUE(first_.state().Await([](const FakeShardState& s) LOCKED {
      return std::any_of(s.requests.begin(), s.requests.end(),
                         [](const proto::SampleRequest& r) { return r.num_windows() > 0; });
    }));
    first_.Kill();
  });
  const WindowBatch batch = Next();
  killer.join();
  for (const int32_t shard : batch.buffer->shards) EXPECT_EQ(shard, 1);
  EXPECT_GT(client_->stats().redistributed, 0);
}

TEST_F(ReplayClientTest, ASilentShardIsTakenForGoneUntilItAnswers) {
  options_.request_timeout = absl::Milliseconds(20);
  options_.silence_timeout = absl::Milliseconds(30);
  Start();
  Next();
  Script(first_, [](FakeShardState& s) LOCKED { s.silent = true; });
  // More than what is under way.
  for (int i = 0; i < 20; ++i) Next();
  EXPECT_EQ(CountFrom(0, 5), 0);
  EXPECT_EQ(client_->counts().inserted, 400);
  Script(first_, [](FakeShardState& s) LOCKED { s.silent = false; });
  while (CountFrom(0, 1) == 0) continue;
}

TEST_F(ReplayClientTest, ARestartedShardsCountsAreReadAnew) {
  Start();
  Next();
  first_.Kill();
  Script(first_, [](FakeShardState& s) LOCKED {
    s.inserted = 20;
    s.sampled = 0;
    s.mass = 20;
  });
  first_.Restart();
  while (client_->counts().inserted != 120) Next();
}

TEST_F(ReplayClientTest, AMassThatGrowsElsewhereIsNoticed) {
  Script(second_, [](FakeShardState& s) LOCKED {
    s.mass = 0;
    s.inserted = 0;
  });
  Start();
  Next();
  Fill(second_, 1000);
  while (CountFrom(1, 1) == 0) continue;
}

TEST_F(ReplayClientTest, AnotherRunIsAPermanentError) {
  Start();
  Next();
  second_.Kill();
  Script(second_, [](FakeShardState& s) LOCKED {
    s.refuse = {grpc::StatusCode::FAILED_PRECONDITION, "holds run 'other'"};
  });
  second_.Restart();
  absl::Status status;
  while (status.ok()) status = client_->NextBatch(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("holds run 'other'"));
}

TEST_F(ReplayClientTest, StopWakesNextBatch) {
  options_.rate_limit = {.min_size = 1000};
  Start();
  std::thread waiting(
      [&] { EXPECT_EQ(client_->NextBatch(Soon()).status().code(), absl::StatusCode::kCancelled); });
  client_->Stop();
  waiting.join();
}

TEST_F(ReplayClientTest, NextBatchBeforeWaitForTableIsRefused) {
  Create();
  EXPECT_EQ(client_->NextBatch(Soon()).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace troupe
