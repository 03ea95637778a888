// troupe-row-log sees what kill_test.py relies on it to see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "replay_server/mapped_file.h"
#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

constexpr uint64_t kBlocks = 8;

class RowLogDump : public testing::Test {
 protected:
  std::string path() const { return dir_.File("replay.rows"); }

  // What the program prints, parsed; the last is the totals.
  std::vector<nlohmann::json> Dump() const {
    FILE* const pipe = popen((std::string(TROUPE_ROW_LOG) + " " + path()).c_str(), "r");
    std::string text;
    for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) text.push_back(static_cast<char>(c));
    EXPECT_EQ(pclose(pipe), 0);
    std::vector<nlohmann::json> lines;
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
      lines.push_back(nlohmann::json::parse(text.substr(begin, text.find('\n', begin) - begin)));
    }
    return lines;
  }

  std::string FileBytes() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDir dir_;
};

// Block `index` of a closed log, open to be falsified.
struct FalseBlock {
  explicit FalseBlock(const std::string& path, uint64_t index)
      : file(*MappedFile::Open(path)), geometry(*ComputeGeometry(TestMetadata(kBlocks))) {
    header = reinterpret_cast<BlockHeader*>(file.data() + geometry.headers_offset) + index;
    rows = file.data() + geometry.rows_offset + index * kRowsPerBlock * kTestStride;
  }
  // Makes one commit of what is there.
  void Sign(uint32_t row_count) {
    header->slots[0] = {row_count, Crc32c(0, rows, row_count * kTestStride), 0};
    header->slots[0].check = CommitCheck(*header, header->slots[0]);
    header->slots[1] = header->slots[2] = {};
  }

  MappedFile file;
  LogGeometry geometry;
  BlockHeader* header;
  uint8_t* rows;
};

TEST_F(RowLogDump, CountsASoundLogAndLeavesItAsItIs) {
  const std::string rows = Rows(7, 0, 100, {49, 99});
  {
    auto log = MakeLog(path(), kBlocks);
    AppendRows(log.get(), 7, rows);
    AppendRows(log.get(), 255, Rows(255, 0, 3));
  }
  const std::string before = FileBytes();
  const std::vector<nlohmann::json> lines = Dump();
  ASSERT_EQ(lines.size(), 3u);
  char crc[9];
  snprintf(crc, sizeof(crc), "%08x", Crc32c(0, rows.data(), rows.size()));
  EXPECT_EQ(lines[0], nlohmann::json({{"stream", "0000000000000007"},
                                      {"blocks", 2},
                                      {"first_row", 0},
                                      {"rows", 100},
                                      {"contiguous", true},
                                      {"crc32c", crc}}));
  EXPECT_EQ(lines[1]["stream"], "00000000000000ff");
  EXPECT_EQ(lines[2], nlohmann::json({{"streams", 2},
                                      {"blocks", 3},
                                      {"rows", 103},
                                      {"env_steps", 101},
                                      {"counted_env_steps", 101},
                                      {"corrupt_blocks", 0},
                                      {"duplicates", 0},
                                      {"repeated_rows", 0}}));
  EXPECT_EQ(FileBytes(), before);
}

TEST_F(RowLogDump, ReadsALogInUse) {
  auto log = MakeLog(path(), kBlocks);
  AppendRows(log.get(), 7, Rows(7, 0, 10));
  EXPECT_EQ(Dump().back()["rows"], 10);
  AppendRows(log.get(), 7, Rows(7, 10, 10));
  EXPECT_EQ(Dump().back()["rows"], 20);
}

TEST_F(RowLogDump, SeesADamagedRow) {
  AppendRows(MakeLog(path(), kBlocks).get(), 7, Rows(7, 0, 64));
  FalseBlock(path(), 0).rows[5 * kTestStride] ^= 1;
  EXPECT_EQ(Dump().back()["corrupt_blocks"], 1);
  EXPECT_EQ(Dump().back()["rows"], 0);
}

TEST_F(RowLogDump, SeesARowNumberInTwoBlocks) {
  AppendRows(MakeLog(path(), kBlocks).get(), 7, Rows(7, 0, 74));
  FalseBlock second(path(), 1);
  second.header->first_row = 0;
  second.Sign(10);
  const std::vector<nlohmann::json> lines = Dump();
  EXPECT_EQ(lines.back()["corrupt_blocks"], 0);
  EXPECT_EQ(lines.back()["duplicates"], 10);
  EXPECT_EQ(lines[0]["contiguous"], false);
}

TEST_F(RowLogDump, SeesARowStoredAgainUnderAnotherNumber) {
  AppendRows(MakeLog(path(), kBlocks).get(), 7, Rows(7, 0, 64) + Rows(7, 60, 4));
  EXPECT_EQ(Dump().back()["repeated_rows"], 4);
  EXPECT_EQ(Dump().back()["duplicates"], 0);
}

TEST_F(RowLogDump, SeesAGapBetweenBlocks) {
  AppendRows(MakeLog(path(), kBlocks).get(), 7, Rows(7, 0, 128));
  FalseBlock second(path(), 1);
  second.header->first_row = 128;
  second.Sign(64);
  EXPECT_EQ(Dump()[0]["contiguous"], false);
  EXPECT_EQ(Dump().back()["corrupt_blocks"], 0);
}

}  // namespace
}  // namespace troupe
