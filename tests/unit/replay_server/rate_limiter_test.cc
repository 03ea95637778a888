#include "replay_server/rate_limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

using ::testing::HasSubstr;

struct SampleCase {
  std::string name;
  RateLimiterOptions options;
  LimiterCounts counts;
  uint64_t wanted;
  bool fits;
  std::string why;
};

class SampleLimitTest : public ::testing::TestWithParam<SampleCase> {};

TEST_P(SampleLimitTest, AdmitsOnlyInsideTheBandAndSaysWhy) {
  const SampleCase& c = GetParam();
  const RateLimiter limiter(c.options);
  EXPECT_EQ(limiter.SampleFits(c.wanted, c.counts), c.fits);
  const std::string why = limiter.WhySampleWaits(c.wanted, c.counts);
  EXPECT_EQ(why.empty(), c.fits);
  EXPECT_THAT(why, HasSubstr(c.why));
}

constexpr RateLimiterOptions kBand = {.min_size = 10, .samples_per_insert = 2, .slack = 8};

INSTANTIATE_TEST_SUITE_P(
    Edges, SampleLimitTest,
    testing::Values(
        SampleCase{"WarmUpBlocks", kBand, {9, 0, 0}, 1, false, "1 more inserts free it"},
        SampleCase{"SlackAloneAfterWarmUp", kBand, {10, 0, 0}, 8, true, ""},
        SampleCase{"OneMoreThanSlack", kBand, {10, 0, 0}, 9, false, "1 more inserts free it"},
        SampleCase{"EarnedByInserts", kBand, {15, 10, 0}, 8, true, ""},
        SampleCase{"NotEarned", kBand, {15, 10, 0}, 13, false, "3 more inserts free it"},
        SampleCase{"NoRatioNoLimit", {.min_size = 10}, {10, 1'000'000, 0}, 1000, true, ""},
        SampleCase{"NoRatioStillWarmsUp", {.min_size = 10}, {9, 0, 0}, 1, false, "9 of 10"}),
    [](const auto& info) { return info.param.name; });

struct WriterCase {
  std::string name;
  RateLimiterOptions options;
  LimiterCounts counts;
  bool may_write;
  std::string why;
};

class WriterLimitTest : public ::testing::TestWithParam<WriterCase> {};

TEST_P(WriterLimitTest, HoldsWritersBackOnlyOutsideTheBandAndSaysWhy) {
  const WriterCase& c = GetParam();
  const RateLimiter limiter(c.options);
  EXPECT_EQ(limiter.WritersMayWrite(c.counts), c.may_write);
  const std::string why = limiter.WhyWritersWait(c.counts);
  EXPECT_EQ(why.empty(), c.may_write);
  EXPECT_THAT(why, HasSubstr(c.why));
}

INSTANTIATE_TEST_SUITE_P(
    Edges, WriterLimitTest,
    testing::Values(WriterCase{"WarmUpIsFree", kBand, {10, 0, 0}, true, ""},
                    WriterCase{"UpToTheSlack", kBand, {14, 0, 0}, true, ""},
                    WriterCase{"BeyondIt", kBand, {15, 0, 0}, false, "2 more samples free it"},
                    WriterCase{"FreedBySampling", kBand, {15, 2, 0}, true, ""},
                    WriterCase{"NoRatioNoLimit", {.min_size = 1}, {1'000'000, 0, 0}, true, ""},
                    WriterCase{"QueueHasRoom", {.queue_length = 4}, {9, 0, 3}, true, ""},
                    WriterCase{"QueueIsFull",
                               {.queue_length = 4},
                               {9, 0, 5},
                               false,
                               "2 more sampled windows free it"}),
    [](const auto& info) { return info.param.name; });

TEST(RateLimiterTest, ABandOfOneBatchNeverBlocksBothSides) {
  const RateLimiter limiter({.min_size = 100, .samples_per_insert = 4, .slack = 2 * 16 + 64 * 4});
  for (uint64_t inserted = 100; inserted < 600; ++inserted) {
    for (uint64_t sampled = 0; sampled < 2000; sampled += 16) {
      const LimiterCounts counts = {inserted, sampled, 0};
      EXPECT_TRUE(limiter.SampleFits(16, counts) || limiter.WritersMayWrite(counts))
          << inserted << " " << sampled;
    }
  }
}

}  // namespace
}  // namespace troupe
