#include "common/event_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace troupe {
namespace {

TEST(EventWriter, MakesItsFolder) {
  const std::string folder = testing::TempDir() + "/event_writer/a/b";
  const auto writer = EventWriter::Create(folder);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE(std::filesystem::exists((*writer)->path()));
  EXPECT_THAT((*writer)->path(), testing::HasSubstr("tfevents"));
}

TEST(EventWriter, TheFirstRecordIsTensorBoardsVersionMark) {
  const auto writer = EventWriter::Create(testing::TempDir() + "/event_writer/first");
  ASSERT_TRUE(writer.ok()) << writer.status();
  std::ifstream file((*writer)->path(), std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  // 8 bytes of length, 4 of its CRC, then wall_time (9 bytes) and file_version.
  ASSERT_EQ(bytes.size(), 8u + 4 + 9 + 15 + 4);
  EXPECT_EQ(bytes[0], 24);
  EXPECT_EQ(bytes.substr(23, 13), "brain.Event:2");
}

TEST(EventWriter, AFolderThatCannotBeMadeIsNamed) {
  const auto writer = EventWriter::Create("/proc/nowhere");
  ASSERT_FALSE(writer.ok());
  EXPECT_THAT(std::string(writer.status().message()), testing::HasSubstr("/proc/nowhere"));
}

}  // namespace
}  // namespace troupe
