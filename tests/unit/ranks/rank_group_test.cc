#include "learner/rank_group.h"

#include <random>

#include "gmock/gmock.h"
#include "tests/unit/ranks/run_ranks.h"

namespace troupe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(RankGroupTest, SumsAreTheSameBitsAtEachRank) {
  std::vector<std::vector<float>> sums(3);
  std::vector<double> expected(100003);
  std::vector<std::vector<float>> given(3, std::vector<float>(expected.size()));
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  for (auto& values : given) {
    for (size_t i = 0; i < values.size(); ++i) expected[i] += values[i] = normal(engine);
  }
  RunRanks(3, [&](std::unique_ptr<RankGroup> ranks) {
    std::vector<float> values = given[ranks->rank()];
    ASSERT_TRUE(ranks->Sum(absl::MakeSpan(values)).ok());
    sums[ranks->rank()] = std::move(values);
  });
  EXPECT_EQ(sums[0], sums[1]);
  EXPECT_EQ(sums[0], sums[2]);
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(sums[0][i], expected[i], 1e-5) << i;
}

TEST(RankGroupTest, TheLeastOfAllAndTheBytesOfTheFirstReachEach) {
  std::vector<int64_t> least(2);
  std::vector<std::string> bytes(2);
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    EXPECT_EQ(ranks->size(), 2);
    const int rank = ranks->rank();
    least[rank] = *ranks->Least(rank == 0 ? 7 : -(int64_t{1} << 40));
    bytes[rank] = *ranks->FromFirst(rank == 0 ? std::string("a\0b", 3) : "longer than that");
    EXPECT_EQ(*ranks->FromFirst(""), "");
  });
  EXPECT_THAT(least, ElementsAre(-(int64_t{1} << 40), -(int64_t{1} << 40)));
  EXPECT_THAT(bytes, ElementsAre(std::string("a\0b", 3), std::string("a\0b", 3)));
}

TEST(RankGroupTest, ARankThatIsGoneIsAnErrorForTheOthers) {
  absl::Status status;
  RunRanks(2, [&](std::unique_ptr<RankGroup> ranks) {
    if (ranks->rank() == 1) return;
    std::vector<float> values(10);
    // The first may still have found the other one.
    for (int i = 0; i < 1000 && status.ok(); ++i) status = ranks->Sum(absl::MakeSpan(values));
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 of 2 learners"));
}

TEST(RankGroupTest, ARendezvousThatIsNoneIsRefused) {
  for (const char* const address : {"", "here", ":1", "here:0", "here:65536", "here:x"}) {
    const auto group =
        JoinRanks({.rank = 0, .size = 2, .rendezvous = address}, [] { return false; });
    EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

TEST(RankGroupTest, WaitingForTheOthersCanBeStopped) {
  for (const int rank : {0, 1}) {
    int asked = 0;
    const auto group = JoinRanks({.rank = rank, .size = 2, .rendezvous = FreeAddress()},
                                 [&] { return ++asked > 1; });
    EXPECT_EQ(group.status().code(), absl::StatusCode::kCancelled);
  }
}

}  // namespace
}  // namespace troupe
