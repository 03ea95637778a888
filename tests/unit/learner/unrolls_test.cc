#include "learner/unrolls.h"

#include <cstring>

#include "gtest/gtest.h"
#include "tests/unit/learner/ppo_rows.h"

namespace troupe {
namespace {

TEST(Unrolls, FinalRowsAreNoStepsAndSayHowTheOneBeforeEnded) {
  const Layout layout = ContinuousLayout(1, {-2}, {4});
  // Three steps, terminated, a step of the next episode, truncated, a step, and the cut.
  const std::vector<uint32_t> flags = {0, 0, kTerminated, 0, kTruncated, 0, kCut};
  std::vector<PpoRow> rows;
  for (size_t t = 0; t < flags.size(); ++t) {
    const float x = static_cast<float>(t);
    rows.push_back(
        {.observation = {x}, .action = {x}, .reward = 10 * x, .log_prob = -x, .flags = flags[t]});
  }
  const std::vector<uint8_t> bytes = PackRows(layout, rows);
  const Unrolls b = UnrollReader::Create(layout, {})->Read(bytes.data(), 1, rows.size());
  EXPECT_EQ(b.num_unrolls(), 1);
  EXPECT_EQ(b.length(), 6);
  const bool is_step[] = {true, true, false, true, false, true};
  const bool terminated[] = {false, true, false, false, false, false};
  const bool goes_on[] = {true, false, true, false, true, false};
  for (int t = 0; t < 6; ++t) {
    EXPECT_EQ(b.is_step[0][t].item<bool>(), is_step[t]) << t;
    EXPECT_EQ(b.terminated[0][t].item<bool>(), terminated[t]) << t;
    EXPECT_EQ(b.goes_on[0][t].item<bool>(), goes_on[t]) << t;
    EXPECT_EQ(b.r[0][t].item<float>(), 10 * t);
    EXPECT_EQ(b.log_mu[0][t].item<float>(), -t);
    EXPECT_FLOAT_EQ(b.a[0][t][0].item<float>(), (t - 1) / 3.0f);  // from [-2, 4] to (-1, 1)
  }
  EXPECT_EQ(b.s[0][6][0].item<float>(), 6);
}

TEST(Unrolls, ChoicesAreReadAsTheyAre) {
  const Layout layout = DiscreteLayout(2, {3, 4});
  const std::vector<uint8_t> bytes = PackRows(
      layout, {{.observation = {1, 2}, .choices = {2, 3}}, {.observation = {3, 4}, .flags = kCut}});
  const UnrollReader reader = *UnrollReader::Create(layout, {});
  EXPECT_TRUE(reader.discrete());
  const Unrolls b = reader.Read(bytes.data(), 1, 2);
  EXPECT_EQ(b.a[0][0][0].item<int64_t>(), 2);
  EXPECT_EQ(b.a[0][0][1].item<int64_t>(), 3);
}

TEST(Unrolls, ALayoutWithoutLogProbIsRefusedByName) {
  proto::Layout layout = ContinuousLayout(1, {-1}, {1}).proto();
  layout.mutable_columns()->RemoveLast();
  const auto reader = UnrollReader::Create(*Layout::FromProto(layout), {});
  ASSERT_FALSE(reader.ok());
  EXPECT_NE(reader.status().message().find("log_prob"), std::string::npos) << reader.status();
}

}  // namespace
}  // namespace troupe
