#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/config.h"

namespace troupe {
namespace {

TEST(ShippedConfigs, AllLoad) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(TROUPE_CONFIGS)) {
    const absl::StatusOr<proto::Config> config = LoadConfig(entry.path(), {});
    EXPECT_TRUE(config.ok()) << entry.path() << ": " << config.status();
    names.push_back(entry.path().stem());
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"sac_pendulum", "sac_half_cheetah", "sac_humanoid"}));
}

}  // namespace
}  // namespace troupe
