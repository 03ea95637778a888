#include "common/checkpoint.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::path(testing::TempDir()) /
            testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(path_);
  }

  static Checkpoint Make(int64_t updates) {
    return {.updates = updates,
            .counters = {{"env_steps", updates + 1}},
            .files = {{"model.safetensors", std::string(1000, 'a' + updates % 26)},
                      {"config.json", "{}"}}};
  }

  absl::Status Write(int64_t updates, int keep = 2) {
    return CheckpointDirectory(path_, keep).Write(Make(updates));
  }

  absl::StatusOr<CheckpointDirectory::Found> Newest() {
    return CheckpointDirectory(path_, 2).ReadNewest();
  }

  std::vector<std::string> Folders() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path path_;
};

TEST_F(CheckpointTest, TheNewestComesBackAsItWas) {
  ASSERT_TRUE(Write(5).ok());
  ASSERT_TRUE(Write(1000).ok());
  const auto found = Newest();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->checkpoint.updates, 1000);
  EXPECT_EQ(found->checkpoint.counters, Make(1000).counters);
  EXPECT_EQ(found->checkpoint.files, Make(1000).files);
  EXPECT_TRUE(found->skipped.empty());
}

TEST_F(CheckpointTest, OnlyTheNewestAreKept) {
  for (const int64_t updates : {1, 2, 3, 4}) ASSERT_TRUE(Write(updates).ok());
  EXPECT_THAT(Folders(), ElementsAre("000000000003", "000000000004"));
}

TEST_F(CheckpointTest, ACheckpointOfTheSameUpdatesReplacesTheOldOne) {
  ASSERT_TRUE(Write(7).ok());
  std::ofstream(path_ / "000000000007" / "model.safetensors") << "torn";
  ASSERT_TRUE(Write(7).ok());
  EXPECT_EQ(Newest()->checkpoint.files, Make(7).files);
  EXPECT_THAT(Folders(), ElementsAre("000000000007"));
}

TEST_F(CheckpointTest, WithoutAnyItIsNotFound) {
  EXPECT_EQ(Newest().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, AHalfWrittenFolderIsNoCheckpoint) {
  ASSERT_TRUE(Write(1).ok());
  fs::create_directories(path_ / ".new-000000000002");
  std::ofstream(path_ / ".new-000000000002" / "model.safetensors") << "half";
  EXPECT_EQ(Newest()->checkpoint.updates, 1);
  EXPECT_TRUE(Write(2).ok());
  EXPECT_EQ(Newest()->checkpoint.updates, 2);
}

TEST_F(CheckpointTest, NumbersOfUpdatesThatAreNoneAreRefused) {
  for (const char* number : {"-1", "1.5", "1e300", "18446744073709551615", "\"1\"", "null"}) {
    ASSERT_TRUE(Write(1).ok());
    const fs::path marker = path_ / "000000000001" / "checkpoint.json";
    std::stringstream text;
    text << std::ifstream(marker).rdbuf();
    const std::string before = "\"updates\": 1";
    std::string changed = text.str();
    changed.replace(changed.find(before), before.size(), std::string("\"updates\": ") + number);
    std::ofstream(marker) << changed;
    EXPECT_EQ(Newest().status().code(), absl::StatusCode::kDataLoss) << number;
  }
}

TEST_F(CheckpointTest, AnUnwritableDirectoryIsNamed) {
  std::ofstream(path_.string()) << "a file";
  const absl::Status status = Write(1);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(path_.string()));
}

enum class Fault { kTruncated, kFlipped, kMissingFile, kMissingMarker, kBrokenMarker };
class TornCheckpoint : public CheckpointTest, public testing::WithParamInterface<Fault> {
 protected:
  void Break(const fs::path& folder) {
    const fs::path model = folder / "model.safetensors", marker = folder / "checkpoint.json";
    switch (GetParam()) {
      case Fault::kTruncated:
        return fs::resize_file(model, 999);
      case Fault::kFlipped: {
        std::fstream file(model, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(500);
        file.put('?');
        return;
      }
      case Fault::kMissingFile:
        fs::remove(model);
        return;
      case Fault::kMissingMarker:
        fs::remove(marker);
        return;
      case Fault::kBrokenMarker:
        return fs::resize_file(marker, fs::file_size(marker) / 2);
    }
  }
};

TEST_P(TornCheckpoint, FallsBackToTheOneBeforeAndSaysSo) {
  ASSERT_TRUE(Write(1).ok());
  ASSERT_TRUE(Write(2).ok());
  Break(path_ / "000000000002");
  const auto found = Newest();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->checkpoint.files, Make(1).files);
  ASSERT_EQ(found->skipped.size(), 1u);
  EXPECT_THAT(found->skipped[0], HasSubstr("000000000002"));
  Break(path_ / "000000000001");
  EXPECT_EQ(Newest().status().code(), absl::StatusCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Faults, TornCheckpoint,
                         testing::Values(Fault::kTruncated, Fault::kFlipped, Fault::kMissingFile,
                                         Fault::kMissingMarker, Fault::kBrokenMarker));

}  // namespace
}  // namespace troupe
