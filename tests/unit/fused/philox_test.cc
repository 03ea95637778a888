#include "learner/fused/philox.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

// Known answers of the authors' Random123 library for philox4x32-10.
TEST(PhiloxTest, GivesTheKnownAnswers) {
  const RandomWords zero = Philox(0, {{0, 0, 0, 0}});
  EXPECT_EQ(zero.x[0], 0x6627e8d5u);
  EXPECT_EQ(zero.x[1], 0xe169c58du);
  EXPECT_EQ(zero.x[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.x[3], 0x9b00dbd8u);
  const RandomWords ones = Philox(~uint64_t{0}, {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}});
  EXPECT_EQ(ones.x[0], 0x408f276du);
  EXPECT_EQ(ones.x[1], 0x41c83b0eu);
  EXPECT_EQ(ones.x[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.x[3], 0x6d5451fdu);
}

TEST(PhiloxTest, NormalsHaveTheirMomentsAndDrawsAreEven) {
  constexpr int kDraws = 200000;
  double sum = 0, squares = 0, fourths = 0;
  std::vector<int> counts(10);
  for (uint32_t i = 0; i < kDraws; ++i) {
    const double z = DrawNormal(DrawWords(5, 7, Draw::kAction, i));
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
    ++counts[DrawBelow(DrawWords(5, 7, Draw::kTransition, i), 10)];
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.01);
  EXPECT_NEAR(squares / kDraws, 1, 0.015);
  EXPECT_NEAR(fourths / kDraws, 3, 0.1);
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 10, 600);
}

TEST(PhiloxTest, SubsetsHoldDifferentOnesAndEachAsOften) {
  constexpr int kDraws = 20000;
  std::vector<int> counts(5);
  for (uint64_t update = 0; update < kDraws; ++update) {
    int32_t order[5];
    DrawSubset(3, update, 5, 2, order);
    ASSERT_NE(order[0], order[1]);
    ++counts[order[0]];
    ++counts[order[1]];
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws * 2 / 5, 300);
}

}  // namespace
}  // namespace troupe
