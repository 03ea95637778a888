#include "actor/probe.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "actor/env.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class ProbeTest : public testing::Test {
 protected:
  ProbeTest() {
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    options_.actions_path = testing::TempDir() + "probe_" + name;
    options_.environment.set_id("Pendulum-v1");
    options_.asset_dir = DefaultAssetDir();
    options_.output = &output_;
  }

  absl::Status Run(const std::string& actions) {
    std::ofstream(options_.actions_path) << actions;
    return RunProbe(options_);
  }

  std::vector<json> Lines() const {
    std::istringstream text(output_.str());
    std::vector<json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  }

  ProbeOptions options_;
  std::ostringstream output_;
};

TEST_F(ProbeTest, PrintsTheResetAndEachStep) {
  options_.state = {0, 0};
  ASSERT_TRUE(Run("2\n[-2.0]\n\n 0.5 \n").ok());
  const auto lines = Lines();
  ASSERT_EQ(lines.size(), 4);
  EXPECT_EQ(lines[0], (json{{"observation", {1.0, 0.0, 0.0}}}));
  EXPECT_EQ(lines[1]["reward"], -0.004);
  EXPECT_EQ(lines[1]["terminated"], false);
  EXPECT_EQ(lines[1]["truncated"], false);
}

TEST_F(ProbeTest, NumbersComeBackBitForBit) {
  options_.seed = 3;
  ASSERT_TRUE(Run("0.1\n").ok());
  const auto env = *MakeEnv(options_.environment, "");
  std::vector<double> observation(3);
  env->Reset(3, absl::MakeSpan(observation));
  EXPECT_EQ(Lines()[0]["observation"], json(observation));
  const StepResult result = env->Step({0.1}, absl::MakeSpan(observation));
  EXPECT_EQ(Lines()[1]["observation"], json(observation));
  EXPECT_EQ(Lines()[1]["reward"], json(result.reward));
}

TEST_F(ProbeTest, StopsAtTheEndOfTheEpisode) {
  options_.environment.set_max_episode_steps(2);
  ASSERT_TRUE(Run("0\n0\n0\n0\n").ok());
  ASSERT_EQ(Lines().size(), 3);
  EXPECT_EQ(Lines().back()["truncated"], true);
}

TEST_F(ProbeTest, GoesOnWithTheNextSeedIfAsked) {
  options_.environment.set_max_episode_steps(1);
  options_.continue_after_end = true;
  options_.seed = 8;
  ASSERT_TRUE(Run("0\n0\n").ok());
  const auto lines = Lines();
  ASSERT_EQ(lines.size(), 4);
  std::vector<double> observation(3);
  (*MakeEnv(options_.environment, ""))->Reset(9, absl::MakeSpan(observation));
  EXPECT_EQ(lines[2]["observation"], json(observation));
}

TEST_F(ProbeTest, NumbersThatAreNotFiniteAreWrittenAsPythonDoes) {
  options_.state = {0, std::nan("")};
  ASSERT_TRUE(Run("0\n").ok());
  EXPECT_THAT(output_.str(), HasSubstr("[1,0,NaN]"));
}

struct BadCase {
  std::string name, id, actions, message;
};

// GoogleTest prints the parameter of a failed test.
void PrintTo(const BadCase& c, std::ostream* out) { *out << c.name; }

class BadLines : public ProbeTest, public testing::WithParamInterface<BadCase> {};

TEST_P(BadLines, NameFileAndLine) {
  const BadCase& c = GetParam();
  options_.environment.set_id(c.id);
  const absl::Status status = Run(c.actions);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(options_.actions_path + c.message));
  EXPECT_EQ(output_.str(), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLines,
    testing::Values(BadCase{"Word", "Pendulum-v1", "0\n\nx\n", ":3: not a number: x"},
                    BadCase{"Count", "Pendulum-v1", "0 1\n", ":1: an action of Pendulum-v1 has 1"},
                    BadCase{"Json", "Pendulum-v1", "[0\n", ":1: not a JSON array"},
                    BadCase{"JsonElement", "Pendulum-v1", "[\"a\"]\n", ":1: not a number: \"a\""},
                    BadCase{"NotFinite", "Pendulum-v1", "0\nnan\n", ":2: not finite"},
                    BadCase{"Choice", "CartPole-v1", "2\n", ":1: an action of CartPole-v1 is one"},
                    BadCase{"Fraction", "CartPole-v1", "0.5\n", ":1: an action of CartPole-v1"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ProbeTest, AMissingFileIsNamed) {
  options_.actions_path = "/nowhere/actions";
  EXPECT_THAT(RunProbe(options_).message(), HasSubstr("/nowhere/actions"));
}

TEST_F(ProbeTest, AStateOfTheWrongSizeIsRefused) {
  options_.state = {0};
  EXPECT_THAT(Run("0\n").message(), HasSubstr("2 numbers; got 1"));
}

}  // namespace
}  // namespace troupe
