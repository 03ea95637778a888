#include "learner/fused/cpu/thread_team.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace troupe::cpu {
namespace {

class ThreadTeamTest : public testing::TestWithParam<int> {};

TEST_P(ThreadTeamTest, RunsWorkOnceOnEachThread) {
  ThreadTeam team(GetParam());
  EXPECT_EQ(team.size(), GetParam());
  std::vector<int> calls(GetParam());
  for (int run = 0; run < 100; ++run) {
    team.Run([&](int thread) { ++calls[thread]; });
  }
  EXPECT_EQ(calls, std::vector<int>(GetParam(), 100));
}

// Each adds up what all have written before the barrier.
TEST_P(ThreadTeamTest, AtABarrierAllSeeWhatEachHasWritten) {
  const int n = GetParam();
  ThreadTeam team(n);
  std::vector<int> written(n), sums(n);
  for (int run = 1; run <= 100; ++run) {
    team.Run([&](int thread) {
      for (int round = 1; round <= 20; ++round) {
        written[thread] = run * round;
        team.Barrier();
        sums[thread] = 0;
        for (const int number : written) sums[thread] += number;
        team.Barrier();
        if (sums[thread] != n * run * round) sums[thread] = -1;
      }
    });
    ASSERT_EQ(sums, std::vector<int>(n, n * run * 20)) << run;
  }
}

TEST_P(ThreadTeamTest, DenormalsAreZeroInARunAndNotAfterwards) {
  ThreadTeam team(GetParam());
  volatile float small = std::numeric_limits<float>::min();
  std::vector<float> halves(GetParam(), 1.0f);
  team.Run([&](int thread) { halves[thread] = small / 2; });
#if defined(__SSE__)
  EXPECT_EQ(halves, std::vector<float>(GetParam(), 0.0f));
#endif
  EXPECT_GT(small / 2, 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadTeamTest, testing::Values(1, 2, 3),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace troupe::cpu
