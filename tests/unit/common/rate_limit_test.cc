#include "common/rate_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct SampleCase {
  std::string name;
  RateLimit limit;
  LimiterCounts counts;
  uint64_t wanted;
  bool fits;
  std::string why;
};

class SampleLimitTest : public ::testing::TestWithParam<SampleCase> {};

TEST_P(SampleLimitTest, AdmitsOnlyInsideTheBandAndSaysWhy) {
  const SampleCase& c = GetParam();
  const RateLimiter limiter(c.limit);
  EXPECT_EQ(limiter.SampleFits(c.wanted, c.counts), c.fits);
  const std::string why = limiter.WhySampleWaits(c.wanted, c.counts);
  EXPECT_EQ(why.empty(), c.fits) << why;
  EXPECT_THAT(why, HasSubstr(c.why));
}

constexpr RateLimit kBand = {.min_size = 10, .samples_per_insert = 2, .slack = 8};

INSTANTIATE_TEST_SUITE_P(
    Edges, SampleLimitTest,
    testing::Values(
        SampleCase{"WarmUpBlocks",
                   kBand,
                   {.inserted = 9},
                   1,
                   false,
                   "min_size: 9 of 10 windows inserted; 1 more inserts free it"},
        SampleCase{"SlackAloneAfterWarmUp", kBand, {.inserted = 10}, 8, true, ""},
        SampleCase{"OneMoreThanSlack",
                   kBand,
                   {.inserted = 10},
                   9,
                   false,
                   "samples_per_insert: 0 sampled + 9 wanted > 2 * (10 inserted - 10) + slack 8; "
                   "1 more inserts free it"},
        SampleCase{"EarnedByInserts", kBand, {.inserted = 15, .sampled = 10}, 8, true, ""},
        SampleCase{"NotEarned",
                   kBand,
                   {.inserted = 15, .sampled = 10},
                   13,
                   false,
                   "3 more inserts free it"},
        SampleCase{"NoRatioNoLimit",
                   {.min_size = 10},
                   {.inserted = 10, .sampled = 1'000'000},
                   1000,
                   true,
                   ""},
        SampleCase{"NoRatioStillWarmsUp",
                   {.min_size = 10},
                   {.inserted = 9},
                   1,
                   false,
                   "min_size: 9 of 10"},
        SampleCase{"WarmUpOwesTheBandToo",
                   kBand,
                   {.inserted = 9, .sampled = 100},
                   8,
                   false,
                   "9 of 10 windows inserted; 51 more inserts free it"},
        SampleCase{"PreloadedWindowsWarmUp", kBand, {.preloaded = 10}, 8, true, ""},
        SampleCase{"PreloadedWindowsEarnNothing",
                   kBand,
                   {.preloaded = 1'000'000},
                   9,
                   false,
                   "2 * (0 inserted - 0 after 1000000 preloaded) + slack 8; 1 more inserts"},
        SampleCase{"PreloadedWindowsShortenTheWarmUp",
                   kBand,
                   {.inserted = 6, .preloaded = 5, .sampled = 2},
                   8,
                   true,
                   ""},
        SampleCase{"PreloadedWindowsAndInsertsWarmUpTogether",
                   kBand,
                   {.inserted = 4, .preloaded = 5},
                   1,
                   false,
                   "min_size: 4 of 10 windows inserted and 5 preloaded; 1 more inserts free it"}),
    [](const auto& info) { return info.param.name; });

struct WriterCase {
  std::string name;
  RateLimit limit;
  LimiterCounts counts;
  bool may_write;
  std::string why;
};

class WriterLimitTest : public ::testing::TestWithParam<WriterCase> {};

TEST_P(WriterLimitTest, HoldsWritersBackOnlyOutsideTheBandAndSaysWhy) {
  const WriterCase& c = GetParam();
  const RateLimiter limiter(c.limit);
  EXPECT_EQ(limiter.WritersMayWrite(c.counts), c.may_write);
  const std::string why = limiter.WhyWritersWait(c.counts);
  EXPECT_EQ(why.empty(), c.may_write) << why;
  EXPECT_THAT(why, HasSubstr(c.why));
}

INSTANTIATE_TEST_SUITE_P(
    Edges, WriterLimitTest,
    testing::Values(
        WriterCase{"WarmUpIsFree", kBand, {.inserted = 10}, true, ""},
        WriterCase{"UpToTheSlack", kBand, {.inserted = 14}, true, ""},
        WriterCase{"BeyondIt",
                   kBand,
                   {.inserted = 15},
                   false,
                   "samples_per_insert: 2 * (15 inserted - 10) - 0 sampled > slack 8; 2 more "
                   "samples free it"},
        WriterCase{"FreedBySampling", kBand, {.inserted = 15, .sampled = 2}, true, ""},
        WriterCase{"NoRatioNoLimit", {.min_size = 1}, {.inserted = 1'000'000}, true, ""},
        WriterCase{"PreloadedWindowsAreNotInserts",
                   kBand,
                   {.inserted = 4, .preloaded = 1'000'000},
                   true,
                   ""},
        WriterCase{"PreloadedWindowsEndTheWarmUpEarlier",
                   kBand,
                   {.inserted = 10, .preloaded = 5},
                   false,
                   "2 * (10 inserted - 5 after 5 preloaded) - 0 sampled > slack 8; 2 more samples"},
        WriterCase{
            "ShareHasRoom", kBand, {.inserted = 14, .inserted_here = 7, .share_here = 7}, true, ""},
        WriterCase{"ShareIsUsed",
                   kBand,
                   {.inserted = 14, .inserted_here = 8, .share_here = 7.5},
                   false,
                   "this shard's part of 14 windows inserted for 0 sampled is 7, and it has 8; the "
                   "learner's next request frees it"},
        WriterCase{
            "QueueHasRoom", {.queue_length = 4}, {.inserted = 9, .unsampled_here = 3}, true, ""},
        WriterCase{"QueueIsFull",
                   {.queue_length = 4},
                   {.inserted = 9, .unsampled_here = 5},
                   false,
                   "queue_length: 5 windows of this shard were never sampled, at most 4; 2 more "
                   "sampled windows free it"},
        WriterCase{"AFullQueueWaitsForMinSize",
                   {.min_size = 10, .queue_length = 4},
                   {.inserted = 9, .unsampled_here = 9},
                   true,
                   ""},
        WriterCase{"AStarvedShardIsFree",
                   {.min_size = 10, .samples_per_insert = 2, .slack = 8, .queue_length = 4},
                   {.inserted = 15,
                    .inserted_here = 8,
                    .unsampled_here = 5,
                    .share_here = 7,
                    .starved_here = true},
                   true,
                   ""}),
    [](const auto& info) { return info.param.name; });

TEST(RateLimiterTest, WritersHearOfBothThatHoldThemBack) {
  const RateLimiter limiter(
      {.min_size = 1, .samples_per_insert = 1, .slack = 8, .queue_length = 4});
  EXPECT_THAT(limiter.WhyWritersWait({.inserted = 20, .unsampled_here = 20}),
              AllOf(HasSubstr("samples_per_insert: "), HasSubstr("; and queue_length: ")));
}

// As many inserts, or samples, as the words say free it, and one less does not.
TEST(RateLimiterTest, WhatTheWordsSayFreesIt) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const RateLimiter limiter({.min_size = 1 + static_cast<int64_t>(random() % 50),
                               .samples_per_insert = static_cast<double>(random() % 5) * 0.75,
                               .slack = static_cast<double>(random() % 40)});
    LimiterCounts counts = {
        .inserted = random() % 80, .preloaded = random() % 3 * 20, .sampled = random() % 200};
    const uint64_t wanted = 1 + random() % 30;
    const std::string sampler = limiter.WhySampleWaits(wanted, counts);
    const std::string writers = limiter.WhyWritersWait(counts);
    const auto number = [](const std::string& why) {
      return std::stoull(why.substr(why.rfind("; ") + 2));
    };
    LimiterCounts later = counts;
    if (!sampler.empty()) {
      later.inserted = counts.inserted + number(sampler);
      EXPECT_TRUE(limiter.SampleFits(wanted, later)) << sampler;
      later.inserted--;
      EXPECT_FALSE(limiter.SampleFits(wanted, later)) << sampler;
    }
    later = counts;
    if (!writers.empty()) {
      later.sampled = counts.sampled + number(writers);
      EXPECT_TRUE(limiter.WritersMayWrite(later)) << writers;
      later.sampled--;
      EXPECT_FALSE(limiter.WritersMayWrite(later)) << writers;
    }
  }
}

TEST(RateLimiterTest, HeadroomIsWhatWritersMayStillInsert) {
  const RateLimiter limiter(kBand);
  for (const uint64_t preloaded : {0, 5, 10, 100}) {
    for (uint64_t inserted = 0; inserted < 40; ++inserted) {
      LimiterCounts counts = {.inserted = inserted, .preloaded = preloaded, .sampled = 12};
      const auto headroom = static_cast<uint64_t>(limiter.Headroom(counts));
      counts.inserted += headroom;
      if (headroom > 0) {
        EXPECT_TRUE(limiter.WritersMayWrite(counts)) << inserted << " " << preloaded;
      }
      counts.inserted++;
      EXPECT_FALSE(limiter.WritersMayWrite(counts)) << inserted << " " << preloaded;
    }
  }
}

// Whatever counts a restart leaves behind, one side can go on.  The shard's share is as of now:
// the learner asks for the counts all the time.
class NeverStuckTest : public ::testing::TestWithParam<RateLimit> {
 protected:
  static constexpr uint64_t kBatch = 16;

  LimiterCounts AnyCounts() {
    return {.inserted = random_() % 700,
            .preloaded = random_() % 3 * 60,
            .sampled = random_() % 2500,
            .inserted_here = random_() % 700};
  }

  const RateLimiter limiter_{GetParam()};
  std::mt19937_64 random_{11};
};

TEST_P(NeverStuckTest, ABandOfOneBatchNeverBlocksBothSides) {
  for (int i = 0; i < 100'000; ++i) {
    LimiterCounts counts = AnyCounts();
    counts.share_here = static_cast<double>(counts.inserted_here) + limiter_.Headroom(counts) / 3;
    EXPECT_TRUE(limiter_.SampleFits(kBatch, counts) || limiter_.WritersMayWrite(counts))
        << limiter_.WhySampleWaits(kBatch, counts) << " | " << limiter_.WhyWritersWait(counts);
  }
}

TEST_P(NeverStuckTest, WritersOfAShardThatLostItsWindowsMayWrite) {
  for (int i = 0; i < 10'000; ++i) {
    LimiterCounts counts = AnyCounts();
    counts.share_here = 0;
    counts.starved_here = true;
    EXPECT_TRUE(limiter_.WritersMayWrite(counts));
  }
}

// A shard replaced by an empty one takes its counts out of the sums, so that too much is sampled
// for what is inserted: the writers of the others get there, however many inserts it takes.
TEST_P(NeverStuckTest, AReplacedShardFreesTheWritersOfTheOthers) {
  for (int i = 0; i < 300; ++i) {
    const LimiterCounts kept = AnyCounts();
    if (limiter_.SampleFits(kBatch, kept)) continue;
    LimiterCounts counts = kept;
    counts.share_here = static_cast<double>(counts.inserted_here) + limiter_.Headroom(counts) / 2;
    ASSERT_TRUE(limiter_.WritersMayWrite(counts));
    for (int inserts = 0; inserts < 10'000 && !limiter_.SampleFits(kBatch, counts); ++inserts) {
      ASSERT_TRUE(limiter_.WritersMayWrite(counts));
      counts.inserted++;
      counts.inserted_here++;
      counts.share_here = static_cast<double>(counts.inserted_here) + limiter_.Headroom(counts) / 2;
    }
    EXPECT_TRUE(limiter_.SampleFits(kBatch, counts));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Bands, NeverStuckTest,
    testing::Values(RateLimit{.min_size = 100, .samples_per_insert = 4, .slack = 2 * 16 + 64 * 4},
                    RateLimit{.min_size = 100, .samples_per_insert = 4, .slack = 16 + 4},
                    RateLimit{.min_size = 100, .samples_per_insert = 0.3, .slack = 16.3},
                    RateLimit{.min_size = 1, .samples_per_insert = 256, .slack = 16 + 256},
                    RateLimit{.min_size = 500}));

// A queue whose windows are sampled once each: what was sampled leaves the queue, so what is left
// of it, over all shards, is what was inserted and not sampled.
TEST(RateLimiterTest, AQueueThatHoldsABatchNeverBlocksBothSides) {
  const RateLimiter limiter(
      {.min_size = 10, .samples_per_insert = 1, .slack = 17, .queue_length = 16});
  for (const uint64_t shards : {1, 2, 3}) {
    for (uint64_t inserted = 0; inserted < 300; ++inserted) {
      for (uint64_t sampled = 0; sampled <= inserted; ++sampled) {
        // Spread evenly: the shard that has the fewest is the first to let its writers go on.
        const LimiterCounts counts = {.inserted = inserted,
                                      .sampled = sampled,
                                      .unsampled_here = (inserted - sampled) / shards};
        EXPECT_TRUE(limiter.SampleFits(16, counts) || limiter.WritersMayWrite(counts))
            << inserted << " " << sampled << " " << shards;
      }
    }
  }
}

}  // namespace
}  // namespace troupe
