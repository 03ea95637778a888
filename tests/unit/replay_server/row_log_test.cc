#include "replay_server/row_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

std::string ReadFile(const std::string& path) {
  std::stringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

class RowLogTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string path_ = dir_.File("rows");
};

TEST_F(RowLogTest, RowsAreAtTheirSlotOverBlocksAndRestarts) {
  std::unique_ptr<RowLog> log = MakeLog(path_, 8);
  AppendRows(log.get(), 7, Rows(7, 0, 10));
  AppendRows(log.get(), 8, Rows(8, 0, 1));
  AppendRows(log.get(), 7, Rows(7, 10, 190, {63, 100}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(log->HeldRows(7), 200);
    EXPECT_EQ(log->HeldRows(8), 1);
    EXPECT_EQ(log->HeldRows(9), 0);
    EXPECT_EQ(log->rows(), 201);
    EXPECT_EQ(log->counts().rows_appended, 201);
    EXPECT_EQ(log->counts().env_steps, 199);
    EXPECT_EQ(log->metadata().run, "run");
    ExpectRowsInPlace(*log, {63, 100});
    log = nullptr;
    log = RecoverLog(path_);
  }
}

TEST_F(RowLogTest, TheOldestBlockMakesRoom) {
  std::unique_ptr<RowLog> log = MakeLog(path_, 4);
  AppendRows(log.get(), 1, Rows(1, 0, 64));
  AppendRows(log.get(), 2, Rows(2, 0, 64 * 3));
  AppendRows(log.get(), 3, Rows(3, 0, 1));
  EXPECT_EQ(log->rows(), 64 * 3 + 1);
  EXPECT_EQ(log->rows_evicted(), 64);
  EXPECT_EQ(log->HeldRows(1), 64);  // gone, but never asked for again
  ExpectRowsInPlace(*log, {});
}

TEST_F(RowLogTest, AStreamWhoseOpenBlockWasEvictedGoesOnInTheMiddleOfABlock) {
  std::unique_ptr<RowLog> log = MakeLog(path_, 2);
  AppendRows(log.get(), 1, Rows(1, 0, 10));
  AppendRows(log.get(), 2, Rows(2, 0, 128));
  AppendRows(log.get(), 1, Rows(1, 10, 60));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(log->HeldRows(1), 70);
    ExpectRowsInPlace(*log, {});
    const std::vector<uint32_t> blocks = log->BlocksByAge();
    ASSERT_EQ(blocks.size(), 2);
    EXPECT_EQ(log->first_row(blocks[0]), 10);
    EXPECT_EQ(log->next(blocks[0]), blocks[1]);
    log = nullptr;
    log = RecoverLog(path_);
  }
}

TEST_F(RowLogTest, RowIdsAreNeverUsedTwice) {
  std::unique_ptr<RowLog> log = MakeLog(path_, 2);
  std::set<uint64_t> ids;
  for (uint64_t first = 0; first < 640; first += 64) {
    AppendRows(log.get(), 1, Rows(1, first, 64));
    const uint32_t newest = log->BlocksByAge().back();
    for (uint32_t slot = 0; slot < 64; ++slot) {
      EXPECT_TRUE(ids.insert(log->RowId(newest, slot)).second);
    }
    log = nullptr;
    if (first == 320) {  // the newest block is damaged: its ids were given out all the same
      std::string bytes = ReadFile(path_);
      const LogGeometry geometry = *ComputeGeometry(TestMetadata(2));
      bytes[geometry.rows_offset + newest * 64 * kTestStride] ^= 1;
      WriteFile(path_, bytes);
    }
    log = RecoverLog(path_);
    if (first == 320) AppendRows(log.get(), 1, Rows(1, 320, 64));
  }
}

TEST_F(RowLogTest, DamageToABlockWithoutRowsIsCountedOnce) {
  MakeLog(path_, 2);
  std::string bytes = ReadFile(path_);
  const LogGeometry geometry = *ComputeGeometry(TestMetadata(2));
  bytes[geometry.headers_offset + offsetof(BlockHeader, slots) + offsetof(CommitSlot, check)] ^= 1;
  WriteFile(path_, bytes);
  EXPECT_EQ(RecoverLog(path_)->corrupt_blocks(), 1);
  EXPECT_EQ(RecoverLog(path_)->corrupt_blocks(), 0);
}

TEST_F(RowLogTest, ADiskTooSmallIsAnErrorWithTheNumbers) {
  const absl::Status status = RowLog::Create(path_, TestMetadata(1'000'000'000)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr(path_));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(RowLogTest, AFileCutShortInItsHeadersIsRefused) {
  AppendRows(MakeLog(path_, 2).get(), 1, Rows(1, 0, 100));
  const std::string bytes = ReadFile(path_);
  const uint64_t headers_end = ComputeGeometry(TestMetadata(2))->times_offset;
  for (size_t size = 0; size < headers_end; size += size < 300 ? 1 : 997) {
    WriteFile(path_, bytes.substr(0, size));
    EXPECT_FALSE(RowLog::Recover(path_).ok()) << size;
  }
}

TEST_F(RowLogTest, RecoveredPrivatelyAFileThatIsCutOffStaysAsItIs) {
  AppendRows(MakeLog(path_, 3).get(), 1, Rows(1, 0, 100));
  const LogGeometry geometry = *ComputeGeometry(TestMetadata(3));
  const std::string cut = ReadFile(path_).substr(0, geometry.rows_offset + 90 * kTestStride);
  WriteFile(path_, cut);
  {
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::RecoverPrivately(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_THAT((*log)->losses()[0], HasSubstr("cut off"));
    EXPECT_EQ((*log)->HeldRows(1), 64);  // the whole block; of the other a row is missing
    (*log)->times_sampled(0, 0) = 7;
    AppendRows(log->get(), 1, Rows(1, 64, 100));
    ExpectRowsInPlace(**log, {});
  }
  EXPECT_TRUE(ReadFile(path_) == cut);
}

// Any one byte of the file may be anything: no crash, no wrong row, and no loss beyond its block.
TEST_F(RowLogTest, ADamagedByteCostsItsBlockAtMost) {
  {
    std::unique_ptr<RowLog> log = MakeLog(path_, 3);
    AppendRows(log.get(), 1, Rows(1, 0, 30, {20}));
    AppendRows(log.get(), 1, Rows(1, 30, 40, {20}));
    AppendRows(log.get(), 2, Rows(2, 0, 5));
  }
  const std::string bytes = ReadFile(path_);
  const LogGeometry geometry = *ComputeGeometry(TestMetadata(3));
  const size_t metadata_end = EncodeFileHeader(TestMetadata(3)).size();
  const std::string damaged_path = dir_.File("damaged");
  for (size_t i = 0; i < bytes.size(); ++i) {
    // Of zeros between the parts, and of rows, a few will do.
    const bool skipped =
        i >= geometry.rows_offset ? i % 7 != 0 : bytes[i] == 0 && i >= metadata_end && i % 512 != 0;
    if (skipped) continue;
    std::string damaged = bytes;
    damaged[i] ^= static_cast<char>(i % 2 == 0 ? 0xff : 0x01);
    WriteFile(damaged_path, damaged);
    absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(damaged_path);
    if (i < metadata_end) {
      EXPECT_FALSE(log.ok()) << i;
      continue;
    }
    ASSERT_TRUE(log.ok()) << i << log.status();
    ExpectRowsInPlace(**log, {20});
    EXPECT_GE((*log)->rows(), 75 - 64) << i;
    EXPECT_LE((*log)->rows(), 75) << i;
    EXPECT_TRUE((*log)->rows() == 75 || (*log)->corrupt_blocks() > 0) << i;
  }
}

TEST_F(RowLogTest, ABlockWhoseNewestRowsAreDamagedKeepsTheOlderOnes) {
  {
    std::unique_ptr<RowLog> log = MakeLog(path_, 2);
    AppendRows(log.get(), 1, Rows(1, 0, 30));
    AppendRows(log.get(), 1, Rows(1, 30, 10));
  }
  std::string bytes = ReadFile(path_);
  bytes[ComputeGeometry(TestMetadata(2))->rows_offset + 35 * kTestStride] ^= 1;
  WriteFile(path_, bytes);
  std::unique_ptr<RowLog> log = RecoverLog(path_);
  EXPECT_EQ(log->HeldRows(1), 30);
  EXPECT_EQ(log->corrupt_blocks(), 1);
  AppendRows(log.get(), 1, Rows(1, 30, 50));
  log = nullptr;
  log = RecoverLog(path_);
  EXPECT_EQ(log->HeldRows(1), 80);
  EXPECT_EQ(log->corrupt_blocks(), 0);
  ExpectRowsInPlace(*log, {});
}

// What a log of so many blocks should hold.
class ReferenceLog final {
 public:
  explicit ReferenceLog(size_t num_blocks) : num_blocks_(num_blocks) {}

  struct Block {
    uint64_t stream;
    uint64_t first_row;
    uint64_t count;
  };

  void AppendRow(uint64_t stream) {
    const uint64_t row = held[stream]++;
    for (Block& block : blocks) {
      const bool has_room = block.stream == stream && block.first_row + block.count == row &&
                            block.first_row / 64 == row / 64;
      if (!has_room) continue;
      block.count++;
      return;
    }
    if (blocks.size() == num_blocks_) blocks.pop_front();
    blocks.push_back({stream, row, 1});
  }

  std::deque<Block> blocks;
  std::map<uint64_t, uint64_t> held;

 private:
  const size_t num_blocks_;
};

TEST_F(RowLogTest, RandomOperationsAgreeWithAReference) {
  constexpr size_t kBlocks = 7;
  std::mt19937_64 random(1);
  std::unique_ptr<RowLog> log = MakeLog(path_, kBlocks);
  ReferenceLog reference(kBlocks);
  uint64_t sampled = 0;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t stream = random() % 4;
    const uint64_t count = 1 + random() % (random() % 8 == 0 ? 300 : 40);
    AppendRows(log.get(), stream, Rows(stream, reference.held[stream], count));
    for (uint64_t i = 0; i < count; ++i) reference.AppendRow(stream);
    if (random() % 5 == 0) {
      LogCounts counts = log->counts();
      counts.sampled = sampled += random() % 10;
      log->CommitCounts(counts);
    }
    if (random() % 10 == 0) {
      log = nullptr;
      log = RecoverLog(path_);
      // A stream without rows is forgotten with the process; its actor begins a new one.
      for (auto& [name, held] : reference.held) {
        const bool has_rows =
            std::any_of(reference.blocks.begin(), reference.blocks.end(),
                        [name = name](const auto& b) { return b.stream == name; });
        if (!has_rows) held = 0;
      }
    }
    const std::vector<uint32_t> blocks = log->BlocksByAge();
    ASSERT_EQ(blocks.size(), reference.blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      ASSERT_EQ(log->first_row(blocks[i]), reference.blocks[i].first_row);
      ASSERT_EQ(log->row_count(blocks[i]), reference.blocks[i].count);
    }
    for (const auto& [name, held] : reference.held) ASSERT_EQ(log->HeldRows(name), held);
    ASSERT_EQ(log->counts().sampled, sampled);
    ASSERT_EQ(log->corrupt_blocks(), 0);
  }
  ExpectRowsInPlace(*log, {});
}

}  // namespace
}  // namespace troupe
