#include "learner/transitions.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/objectives.h"
#include "tests/unit/learner/rows.h"

namespace troupe {
namespace {

using testing::HasSubstr;

constexpr double kGamma = 0.5;

// Row i of a window has observation {i, 10 i}, action 1 and reward 2^i; final rows have neither.
std::vector<Row> Window(const std::vector<uint32_t>& flags) {
  std::vector<Row> rows;
  for (size_t i = 0; i < flags.size(); ++i) {
    const float t = static_cast<float>(i);
    rows.push_back({.observation = {t, 10 * t},
                    .action = {IsFinal(flags[i]) ? 0.f : 1.f},
                    .reward = IsFinal(flags[i]) ? 0.f : std::exp2f(t),
                    .flags = flags[i]});
  }
  return rows;
}

// One transition of the window whose rows have these flags.
struct Read {
  double r, gamma, d, s_next;
};

Read ReadWindow(const std::vector<uint32_t>& flags) {
  const Layout layout = MakeLayout(2, {-2}, {4});
  const auto reader = TransitionReader::Create(
      layout, {.n_step = static_cast<int64_t>(flags.size()) - 1, .gamma = kGamma});
  // Between two ordinary windows, so that a mixed-up batch axis shows.
  std::vector<Row> rows = Window(std::vector<uint32_t>(flags.size(), 0));
  const std::vector<Row> ordinary = rows, wanted = Window(flags);
  rows.insert(rows.end(), wanted.begin(), wanted.end());
  rows.insert(rows.end(), ordinary.begin(), ordinary.end());
  const std::vector<uint8_t> bytes = Pack(layout, rows);
  const Transitions b = reader->Read(bytes.data(), 3);
  EXPECT_EQ(b.s[1][0].item<double>(), 0);
  EXPECT_EQ(b.a.sizes().vec(), (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(b.a[1][0].item<double>(), 0);  // the middle of [-2, 4]
  EXPECT_EQ(b.s_next[1][1].item<double>(), 10 * b.s_next[1][0].item<double>());
  return {b.r[1].item<double>(), b.gamma[1].item<double>(), b.d[1].item<double>(),
          b.s_next[1][0].item<double>()};
}

struct WindowCase {
  std::string name;
  std::vector<uint32_t> flags;
  Read expected;
};

class TransitionWindow : public testing::TestWithParam<WindowCase> {};

TEST_P(TransitionWindow, EndsAtTheFirstFinalRow) {
  const Read read = ReadWindow(GetParam().flags);
  const Read& expected = GetParam().expected;
  EXPECT_EQ(read.r, expected.r);
  EXPECT_EQ(read.gamma, expected.gamma);
  EXPECT_EQ(read.d, expected.d);
  EXPECT_EQ(read.s_next, expected.s_next);
}

// Rewards are 1, 2, 4, ..., gamma is 1/2: every step that counts adds 1.
INSTANTIATE_TEST_SUITE_P(
    Flags, TransitionWindow,
    testing::Values(
        WindowCase{"OneStep", {0, 0}, {1, 0.5, 0, 1}},
        WindowCase{"OneStepTerminated", {0, kTerminated}, {1, 0.5, 1, 1}},
        WindowCase{"OneStepTruncated", {0, kTruncated}, {1, 0.5, 0, 1}},
        WindowCase{"OneStepBoth", {0, kTerminated | kTruncated}, {1, 0.5, 1, 1}},
        WindowCase{"ThreeSteps", {0, 0, 0, 0}, {3, 0.125, 0, 3}},
        WindowCase{"ThreeStepsTerminatedLast", {0, 0, 0, kTerminated}, {3, 0.125, 1, 3}},
        WindowCase{"ThreeStepsTruncatedLast", {0, 0, 0, kTruncated}, {3, 0.125, 0, 3}},
        WindowCase{"CutAtTwo", {0, 0, kTruncated, 0}, {2, 0.25, 0, 2}},
        WindowCase{"CutAtTwoTerminated", {0, 0, kTerminated, 0}, {2, 0.25, 1, 2}},
        WindowCase{"CutAtOne", {0, kTerminated, 0, 0}, {1, 0.5, 1, 1}},
        WindowCase{"NextEpisodesEndIsNotOurs", {0, kTruncated, 0, kTerminated}, {1, 0.5, 0, 1}},
        WindowCase{
            "NextEpisodesTruncationIsNotOurs", {0, kTerminated, 0, kTruncated}, {1, 0.5, 1, 1}}),
    [](const auto& info) { return info.param.name; });

// Fails if the two ends are swapped, or one is derived from the other.
TEST(SoftTargetTest, TruncationBootstrapsAndTerminationDoesNot) {
  const Layout layout = MakeLayout(2, {-2}, {4});
  const auto reader = TransitionReader::Create(layout, {.n_step = 1, .gamma = kGamma});
  std::vector<Row> rows;
  for (const uint32_t end : {uint32_t{0}, uint32_t{kTruncated}, uint32_t{kTerminated}}) {
    for (const Row& row : Window({0, end})) rows.push_back(row);
  }
  const std::vector<uint8_t> bytes = Pack(layout, rows);
  const torch::Tensor y = SoftTarget(reader->Read(bytes.data(), 3), torch::full({3}, 10.0),
                                     torch::full({3}, 2.0), torch::full({1}, 0.5));
  EXPECT_EQ(y[0].item<double>(), 1 + 0.5 * (10 - 0.5 * 2));
  EXPECT_EQ(y[1].item<double>(), 1 + 0.5 * (10 - 0.5 * 2));
  EXPECT_EQ(y[2].item<double>(), 1);
}

TEST(TransitionReaderTest, NativeActionsAreScaledToTheirBounds) {
  const Layout layout = MakeLayout(1, {-2, 0}, {4, 10});
  const auto reader = TransitionReader::Create(layout, {.n_step = 1});
  const Row row{.observation = {0}, .action = {4, 2.5}};
  const std::vector<uint8_t> bytes = Pack(layout, {row, row});
  const Transitions b = reader->Read(bytes.data(), 1);
  EXPECT_FLOAT_EQ(b.a[0][0].item<float>(), 1);
  EXPECT_FLOAT_EQ(b.a[0][1].item<float>(), -0.5);
}

TEST(TransitionReaderTest, ALayoutWithoutFiniteBoundsIsRefused) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto& [low, high] : {std::pair(-inf, inf), std::pair(1.0, 1.0)}) {
    const auto reader = TransitionReader::Create(MakeLayout(1, {low}, {high}), {});
    EXPECT_EQ(reader.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(reader.status().message(), HasSubstr("'action'"));
  }
  proto::Layout unbounded = MakeLayout(1, {-1}, {1}).proto();
  unbounded.mutable_columns(1)->clear_low();
  unbounded.mutable_columns(1)->clear_high();
  EXPECT_FALSE(TransitionReader::Create(*Layout::FromProto(unbounded), {}).ok());
}

TEST(TransitionReaderTest, AMissingOrForeignColumnIsNamed) {
  proto::Layout layout = MakeLayout(1, {-1}, {1}).proto();
  layout.mutable_columns(0)->set_dtype(proto::FLOAT64);
  EXPECT_THAT(TransitionReader::Create(*Layout::FromProto(layout), {}).status().message(),
              HasSubstr("'observation' FLOAT64"));
  layout.mutable_columns()->RemoveLast();
  layout.mutable_columns(0)->set_dtype(proto::FLOAT32);
  EXPECT_THAT(TransitionReader::Create(*Layout::FromProto(layout), {}).status().message(),
              HasSubstr("reward"));
}

}  // namespace
}  // namespace troupe
