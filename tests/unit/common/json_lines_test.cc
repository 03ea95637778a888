#include "common/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <sstream>

#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using testing::HasSubstr;

std::string Contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class JsonLines : public testing::Test {
 protected:
  JsonLines() { std::remove(path_.c_str()); }

  const std::string path_ = testing::TempDir() + "json_lines_test.jsonl";
};

TEST_F(JsonLines, LinesAreAppendedInTheOrderOfTheirFields) {
  ASSERT_TRUE(AppendJsonLine(path_, {{"z", 1}, {"a", "x"}}).ok());
  ASSERT_TRUE(AppendJsonLine(path_, {{"b", 0.5}}).ok());
  EXPECT_EQ(Contents(path_), "{\"z\":1,\"a\":\"x\"}\n{\"b\":0.5}\n");
}

TEST_F(JsonLines, WhatIsNotFiniteIsNull) {
  ASSERT_TRUE(AppendJsonLine(path_, {{"loss", std::numeric_limits<double>::quiet_NaN()}}).ok());
  EXPECT_EQ(Contents(path_), "{\"loss\":null}\n");
}

TEST_F(JsonLines, AFullDiskAndAMissingFolderAreNamed) {
  const absl::Status full = AppendJsonLine("/dev/full", {{"a", 1}});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("/dev/full"));
  EXPECT_THAT(AppendJsonLine("/nowhere/x.jsonl", {{"a", 1}}).message(),
              HasSubstr("/nowhere/x.jsonl"));
}

TEST_F(JsonLines, ALineThatDoesNotFitLeavesNothing) {
  ASSERT_TRUE(AppendJsonLine(path_, {{"a", 1}}).ok());
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit twenty_bytes = {.rlim_cur = 20, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &twenty_bytes), 0);
  const absl::Status status = AppendJsonLine(path_, {{"text", std::string(30, 'x')}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(Contents(path_), "{\"a\":1}\n");
}

}  // namespace
}  // namespace troupe
