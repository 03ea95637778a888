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

TEST(RowPacker, AStepHoldsObservationActionAndReward) {
  const Layout layout = *Layout::FromProto(MakeLayout(Continuous()));
  const RowPacker packer = *RowPacker::Create(layout);
  std::vector<char> row(layout.stride_bytes());
  packer.PackStep(7, {0.5f, 1.5f, 2.5f}, {0.25f, -0.75f}, 3.5f, absl::MakeSpan(row));
  EXPECT_EQ(ReadRowHeader(row.data()).policy_version, 7u);
  EXPECT_FALSE(IsFinal(ReadRowHeader(row.data()).flags));
  EXPECT_EQ(At<float>(row, layout, kObservation, 2), 2.5f);
  EXPECT_EQ(At<float>(row, layout, kAction, 1), -0.75f);
  EXPECT_EQ(At<float>(row, layout, kReward, 0), 3.5f);
}

TEST(RowPacker, AFinalRowKeepsTheTwoFactsApart) {
  const Layout layout = *Layout::FromProto(MakeLayout(Continuous()));
  const RowPacker packer = *RowPacker::Create(layout);
  const auto flags = [&](bool terminated, bool truncated) {
    std::vector<char> row(layout.stride_bytes());
    packer.PackFinal(7, {1, 2, 3}, terminated, truncated, absl::MakeSpan(row));
    EXPECT_EQ(At<float>(row, layout, kObservation, 1), 2.0f);
    EXPECT_EQ(At<float>(row, layout, kReward, 0), 0.0f);
    return ReadRowHeader(row.data()).flags;
  };
  EXPECT_EQ(flags(true, false), kTerminated);
  EXPECT_EQ(flags(false, true), kTruncated);
  EXPECT_EQ(flags(true, true), kTerminated | kTruncated);
}

TEST(RowPacker, ADiscreteActionIsStoredAsItsNumber) {
  const EnvSpec spec{.id = "D-v0", .observation_size = 1, .action_size = 1, .num_choices = 4};
  const Layout layout = *Layout::FromProto(MakeLayout(spec));
  const RowPacker packer = *RowPacker::Create(layout);
  std::vector<char> row(layout.stride_bytes());
  packer.PackStep(1, {0}, {3}, 0, absl::MakeSpan(row));
  EXPECT_EQ(At<int32_t>(row, layout, kAction, 0), 3);
  EXPECT_EQ(layout.proto().columns(1).num_choices(), 4u);
}

TEST(RowPacker, TheLayoutCarriesTheBoundsOfTheAction) {
  const proto::Layout layout = MakeLayout(Continuous());
  EXPECT_EQ(layout.environment(), "Two-v0");
  EXPECT_EQ(layout.columns(1).low(1), -2);
  EXPECT_EQ(layout.columns(1).high(1), 2);
}

}  // namespace
}  // namespace troupe
