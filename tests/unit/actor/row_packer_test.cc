#include "actor/row_packer.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

EnvSpec Continuous() {
  return {.id = "Two-v0",
          .observation_size = 3,
          .action_size = 2,
          .action_low = {-1, -2},
          .action_high = {1, 2}};
}

template <typename T>
T At(const std::vector<char>& row, const Layout& layout, absl::string_view column, int64_t index) {
  T value;
  std::memcpy(&value, row.data() + layout.Find(column)->offset_bytes + index * sizeof(T),
              sizeof(T));
  return value;
}

TEST(RowPacker, AStepHoldsObservationActionRewardAndLogProb) {
  const Layout layout = *Layout::FromProto(MakeLayout(Continuous(), /*with_log_prob=*/true));
  const RowPacker packer = *RowPacker::Create(layout);
  std::vector<char> row(layout.stride_bytes());
  packer.PackStep({.policy_version = 7,
                   .observation = {0.5f, 1.5f, 2.5f},
                   .action = {0.25f, -0.75f},
                   .reward = 3.5f,
                   .log_prob = -2},
                  absl::MakeSpan(row));
  EXPECT_EQ(ReadRowHeader(row.data()).policy_version, 7u);
  EXPECT_FALSE(IsFinal(ReadRowHeader(row.data()).flags));
  EXPECT_EQ(At<float>(row, layout, kObservation, 2), 2.5f);
  EXPECT_EQ(At<float>(row, layout, kAction, 1), -0.75f);
  EXPECT_EQ(At<float>(row, layout, kReward, 0), 3.5f);
  EXPECT_EQ(At<float>(row, layout, kLogProb, 0), -2.0f);
}

TEST(RowPacker, AFinalRowSaysWhy) {
  const Layout layout = *Layout::FromProto(MakeLayout(Continuous()));
  const RowPacker packer = *RowPacker::Create(layout);
  const auto flags = [&](uint32_t why) {
    std::vector<char> row(layout.stride_bytes());
    packer.PackFinal({.policy_version = 7, .observation = {1, 2, 3}, .flags = why},
                     absl::MakeSpan(row));
    EXPECT_EQ(At<float>(row, layout, kObservation, 1), 2.0f);
    EXPECT_EQ(At<float>(row, layout, kReward, 0), 0.0f);
    return ReadRowHeader(row.data()).flags;
  };
  for (const uint32_t why : {uint32_t{kTerminated}, uint32_t{kTruncated}, uint32_t{kCut},
                             uint32_t{kTerminated | kTruncated}}) {
    EXPECT_EQ(flags(why), why);
    EXPECT_TRUE(IsFinal(why));
  }
}

TEST(RowPacker, RowsCarryWhatThePolicyRemembered) {
  EXPECT_FALSE(Layout::FromProto(MakeLayout(Continuous()))->Find(kRecurrentState).ok());
  const Layout layout = *Layout::FromProto(MakeLayout(Continuous(), false, /*state_size=*/4));
  const RowPacker packer = *RowPacker::Create(layout);
  EXPECT_EQ(packer.recurrent_state_size(), 4);
  const std::vector<float> state = {1, -2, 3, 0.5};
  for (const bool is_final : {false, true}) {
    std::vector<char> row(layout.stride_bytes());
    if (is_final) {
      packer.PackFinal({.observation = {1, 2, 3}, .flags = kCut, .recurrent_state = state},
                       absl::MakeSpan(row));
    } else {
      packer.PackStep({.observation = {1, 2, 3}, .action = {0, 0}, .recurrent_state = state},
                      absl::MakeSpan(row));
    }
    std::vector<float> read(4);
    std::memcpy(read.data(), row.data() + layout.Find(kRecurrentState)->offset_bytes, 16);
    EXPECT_EQ(read, state);
  }
}

TEST(RowPacker, ADiscreteActionIsStoredAsItsNumber) {
  const EnvSpec spec{.id = "D-v0", .observation_size = 1, .action_size = 1, .num_choices = {4}};
  const Layout layout = *Layout::FromProto(MakeLayout(spec));
  const RowPacker packer = *RowPacker::Create(layout);
  std::vector<char> row(layout.stride_bytes());
  packer.PackStep({.observation = {0}, .action = {3}}, absl::MakeSpan(row));
  EXPECT_EQ(At<int32_t>(row, layout, kAction, 0), 3);
  EXPECT_EQ(layout.proto().columns(1).num_choices(0), 4u);
}

TEST(RowPacker, TheLayoutCarriesTheBoundsOfTheAction) {
  const proto::Layout layout = MakeLayout(Continuous());
  EXPECT_EQ(layout.environment(), "Two-v0");
  EXPECT_EQ(layout.columns(1).low(1), -2);
  EXPECT_EQ(layout.columns(1).high(1), 2);
}

}  // namespace
}  // namespace troupe
