#include "learner/frame_stacks.h"

#include <algorithm>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using testing::ElementsAre;
using torch::Tensor;

constexpr int kStep = 0;

// The rows that the frames at `row` of the only window come from.
std::vector<int64_t> StackAt(const std::vector<int>& flags, int64_t row, int64_t frames) {
  const Tensor stacks =
      StackedRows(torch::tensor(flags, torch::kInt32).unsqueeze(0), frames)[0][row].contiguous();
  return {stacks.data_ptr<int64_t>(), stacks.data_ptr<int64_t>() + frames};
}

TEST(StackedRows, AreTheLastRowsOfOneEpisode) {
  const std::vector<int> flags = {kStep, kStep, kStep, kStep, kTerminated};
  EXPECT_THAT(StackAt(flags, 3, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(StackAt(flags, 4, 3), ElementsAre(2, 3, 4)) << "the last observation's";
  EXPECT_THAT(StackAt(flags, 4, 1), ElementsAre(4));
}

TEST(StackedRows, BeforeAnEpisodesFirstFrameItStandsAgain) {
  for (const int end : {int{kTerminated}, int{kTruncated}, int{kTerminated | kCut}}) {
    const std::vector<int> flags = {kStep, end, kStep, kStep, kStep};
    EXPECT_THAT(StackAt(flags, 2, 3), ElementsAre(2, 2, 2));
    EXPECT_THAT(StackAt(flags, 3, 3), ElementsAre(2, 2, 3));
    EXPECT_THAT(StackAt(flags, 4, 3), ElementsAre(2, 3, 4));
  }
}

TEST(StackedRows, TheFrameOfACutCountsOnce) {
  const std::vector<int> flags = {kStep, kStep, kCut, kStep, kStep, kCut};
  EXPECT_THAT(StackAt(flags, 2, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(StackAt(flags, 3, 3), ElementsAre(0, 1, 3));
  EXPECT_THAT(StackAt(flags, 5, 4), ElementsAre(1, 3, 4, 5));
}

TEST(StackedRows, BeforeTheWindowTheFirstFrameStandsAgain) {
  EXPECT_THAT(StackAt({kStep, kStep}, 1, 3), ElementsAre(0, 0, 1));
  EXPECT_THAT(StackAt({kCut, kStep, kStep}, 2, 3), ElementsAre(1, 1, 2));
  EXPECT_THAT(StackAt({kTerminated, kCut, kStep}, 2, 2), ElementsAre(2, 2));
}

TEST(StackedRows, WindowsAreCountedOneAfterAnother) {
  const Tensor stacks = StackedRows(torch::zeros({3, 4}, torch::kInt32), 2);
  EXPECT_EQ(stacks[2][0][1].item<int64_t>(), 8);
  EXPECT_EQ(stacks[2][3][0].item<int64_t>(), 10);
}

TEST(Frames, AreAViewOfRows) {
  const Tensor words = torch::arange(2 * 3 * 8, torch::kFloat32).view({2, 3, 8});
  ColumnLayout image;
  image.offset_bytes = 12;
  image.num_elements = 12;
  image.shape = {2, 3, 2};
  const Tensor frames = FramesOf(words, image);
  ASSERT_EQ(frames.sizes(), (std::vector<int64_t>{6, 2, 3, 2}));
  const auto* const bytes = static_cast<const uint8_t*>(words.data_ptr());
  EXPECT_EQ(frames.data_ptr<uint8_t>(), bytes + 12);
  EXPECT_EQ(frames[5][1][2][1].item<int>(), bytes[5 * 32 + 12 + 11]);
}

TEST(GatherShifted, MovesEachStackByItsOwnAndRepeatsTheEdges) {
  constexpr int64_t kHeight = 5, kWidth = 4, kChannels = 2;
  const Tensor frames = torch::arange(6 * kHeight * kWidth * kChannels, torch::kInt64)
                            .remainder(251)
                            .to(torch::kUInt8)
                            .view({6, kHeight, kWidth, kChannels});
  const Tensor stacks = torch::tensor({0, 1, 4, 5, 2, 2}, torch::kInt64).view({3, 2});
  const Tensor shift = torch::tensor({1, -2, 0, 0, -4, 3}, torch::kInt64).view({3, 2});
  const Tensor moved = GatherShifted(frames, stacks, shift);
  ASSERT_EQ(moved.sizes(), (std::vector<int64_t>{3, 2, kHeight, kWidth, kChannels}));
  EXPECT_EQ(moved.scalar_type(), torch::kUInt8);
  for (int64_t b = 0; b < 3; ++b) {
    const auto down = shift[b][0].item<int64_t>(), right = shift[b][1].item<int64_t>();
    for (int64_t f = 0; f < 2; ++f) {
      const Tensor from = frames[stacks[b][f].item<int64_t>()];
      for (int64_t y = 0; y < kHeight; ++y) {
        for (int64_t x = 0; x < kWidth; ++x) {
          const Tensor wanted = from[std::clamp<int64_t>(y - down, 0, kHeight - 1)]
                                    [std::clamp<int64_t>(x - right, 0, kWidth - 1)];
          EXPECT_TRUE(moved[b][f][y][x].equal(wanted)) << b << f << y << x;
        }
      }
    }
  }
  EXPECT_TRUE(
      GatherShifted(frames, stacks, torch::zeros_like(shift)).equal(GatherStacks(frames, stacks)));
}

}  // namespace
}  // namespace troupe
