// Row logs and tables whose rows have compressed columns, held against the rows as they were
// packed.
#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "common/row_codec.h"
#include "replay_server/row_log.h"
#include "replay_server/table.h"
#include "tests/unit/common/frame_rows.h"
#include "tests/unit/replay_server/rows.h"

namespace {

bool disk_is_full = false;

}  // namespace

// Instead of libc's.
extern "C" int posix_fallocate(int fd, off_t offset, off_t size_bytes) {
  if (disk_is_full) return ENOSPC;
  return fallocate(fd, 0, offset, size_bytes) == 0 ? 0 : errno;
}

namespace troupe {
namespace {

using testing::FrameLayout;
using testing::FrameRow;
using ::testing::HasSubstr;

class EncodedRowsTest : public ::testing::TestWithParam<proto::Compression> {
 protected:
  LogMetadata Metadata(uint64_t num_blocks) const {
    LogMetadata metadata;
    metadata.run = "run";
    metadata.table = "replay";
    metadata.layout = layout_.proto().SerializeAsString();
    metadata.stride_bytes = codec_.sizes().most();
    metadata.num_blocks = num_blocks;
    metadata.has_encoded_rows = layout_.has_compressed_columns();
    return metadata;
  }
  void Make(uint64_t num_blocks) {
    auto log = RowLog::Create(path_, Metadata(num_blocks));
    ASSERT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
  }
  void Recover() {
    log_ = nullptr;
    auto log = RowLog::Recover(path_);
    ASSERT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
  }
  absl::StatusOr<std::unique_ptr<Table>> OpenTable(Scheduler* scheduler) const {
    TableOptions options;
    options.name = "replay";
    options.path = path_;
    options.capacity_rows = 512;
    auto table = Table::Make(options, scheduler);
    if (!table.ok()) return table.status();
    if (absl::Status opened = (*table)->Open("run", layout_); !opened.ok()) return opened;
    return table;
  }
  std::string Encoded(uint64_t stream, uint64_t first, uint64_t count) const {
    std::string encoded;
    for (uint64_t row = first; row < first + count; ++row) {
      codec_.Encode(FrameRow(stream, row, finals_.contains(row)), &encoded);
    }
    return encoded;
  }
  // The stream's next rows, in messages of random sizes.
  void Append(uint64_t stream, uint64_t count) {
    while (count > 0) {
      const uint64_t part = std::min<uint64_t>(count, 1 + random_() % 100);
      const std::string encoded = Encoded(stream, log_->HeldRows(stream), part);
      for (absl::string_view rows = encoded; !rows.empty();) {
        ASSERT_TRUE(log_->Reserve(stream, rows).ok());
        if (const uint32_t victim = log_->Victim(stream); victim != kNoBlock) log_->Evict(victim);
        const StagedRows staged = log_->Stage(stream, rows);
        LogCounts counts = log_->counts();
        counts.rows_appended += staged.count;
        log_->Commit(staged, counts);
        rows.remove_prefix(staged.size_bytes);
      }
      count -= part;
    }
  }
  // Every row of every block is what it was when it was packed; neighbours lie without gaps.
  void ExpectRowsAsPacked() const {
    for (const uint32_t block : log_->BlocksByAge()) {
      const auto first_slot = static_cast<uint32_t>(log_->first_row(block) % kRowsPerBlock);
      const uint32_t count = log_->row_count(block);
      const absl::string_view rows(reinterpret_cast<const char*>(log_->row(block, first_slot)),
                                   log_->RowsBytes(block, first_slot, count));
      std::string packed;
      ASSERT_TRUE(codec_.DecodeAll(rows, &packed).ok());
      std::string expected;
      for (uint32_t i = 0; i < count; ++i) {
        const uint64_t row = log_->first_row(block) + i;
        expected += FrameRow(log_->stream(block), row, finals_.contains(row));
        EXPECT_EQ(log_->finals(block) >> (first_slot + i) & 1, finals_.contains(row) ? 1u : 0u);
        EXPECT_EQ(ReadRowHeader(log_->row(block, first_slot + i)).flags,
                  finals_.contains(row) ? kTerminated : 0u);
      }
      ASSERT_TRUE(packed == expected) << "block " << block;
    }
  }
  int64_t AllocatedBytes() const {
    struct stat info = {};
    EXPECT_EQ(stat(path_.c_str(), &info), 0);
    return info.st_blocks * 512;
  }

  const Layout layout_ = FrameLayout(GetParam());
  const RowCodec codec_{layout_};
  const std::set<uint64_t> finals_ = {30, 64, 201};
  std::mt19937_64 random_{5};
  TempDir dir_;
  const std::string path_ = dir_.File("rows");
  std::unique_ptr<RowLog> log_;
};

// What holds of compressed rows alone: packed ones are allocated when the log is made, and
// corruption_test damages them.
class CompressedRowsTest : public EncodedRowsTest {};

TEST_P(EncodedRowsTest, RowsAreThereOverBlocksRingsAndRestarts) {
  ASSERT_NO_FATAL_FAILURE(Make(6));
  for (int life = 0; life < 4; ++life) {
    for (uint64_t stream = 1; stream <= 3; ++stream) {
      ASSERT_NO_FATAL_FAILURE(Append(stream, 1 + random_() % 150));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectRowsAsPacked());
    const uint64_t rows = log_->rows();
    const uint64_t held = log_->HeldRows(3);
    ASSERT_NO_FATAL_FAILURE(Recover());
    EXPECT_EQ(log_->rows(), rows);
    EXPECT_EQ(log_->HeldRows(3), held);
    EXPECT_EQ(log_->corrupt_blocks(), 0);
    ASSERT_NO_FATAL_FAILURE(ExpectRowsAsPacked());
  }
  EXPECT_GT(log_->counts().rows_appended, log_->rows());
}

TEST_P(EncodedRowsTest, AStreamWhoseOpenBlockWasEvictedGoesOnInTheMiddleOfABlock) {
  ASSERT_NO_FATAL_FAILURE(Make(2));
  Append(1, 10);
  Append(2, 128);
  Append(1, 60);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(log_->HeldRows(1), 70);
    ASSERT_NO_FATAL_FAILURE(ExpectRowsAsPacked());
    ASSERT_NO_FATAL_FAILURE(Recover());
  }
}

TEST_P(CompressedRowsTest, AByteThatIsDamagedCostsItsBlock) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  Append(1, 150);
  const uint64_t offset = ComputeGeometry(Metadata(3))->block_offset(1);
  const uint64_t used = log_->RowsBytes(1, 0, 64);
  log_ = nullptr;
  for (uint64_t at = offset; at < offset + used; at += 1 + random_() % 300) {
    const auto flip = [&] {
      FILE* file = fopen(path_.c_str(), "r+b");
      fseek(file, static_cast<long>(at), SEEK_SET);
      const int byte = fgetc(file);
      fseek(file, static_cast<long>(at), SEEK_SET);
      fputc(byte ^ 0x55, file);
      fclose(file);
    };
    flip();
    const auto damaged = RowLog::RecoverPrivately(path_);
    ASSERT_TRUE(damaged.ok());
    EXPECT_EQ((*damaged)->corrupt_blocks(), 1);
    EXPECT_LT((*damaged)->row_count(1), 64);
    flip();
  }
  ASSERT_NO_FATAL_FAILURE(Recover());
  EXPECT_EQ(log_->corrupt_blocks(), 0);
  ASSERT_NO_FATAL_FAILURE(ExpectRowsAsPacked());
}

TEST_P(CompressedRowsTest, ALogThatIsCutOffAnywhereKeepsWhatIsThere) {
  const LogGeometry geometry = *ComputeGeometry(Metadata(3));
  for (uint64_t left = geometry.rows_offset; left < geometry.file_bytes; left += 9973) {
    ASSERT_NO_FATAL_FAILURE(Make(3));
    Append(1, 180);
    log_ = nullptr;
    std::filesystem::resize_file(path_, left);
    ASSERT_NO_FATAL_FAILURE(Recover());
    ASSERT_NO_FATAL_FAILURE(ExpectRowsAsPacked());
    EXPECT_EQ(std::filesystem::file_size(path_), geometry.file_bytes);
  }
}

TEST_P(CompressedRowsTest, TheFileTakesWhatItsRowsTake) {
  const LogGeometry geometry = *ComputeGeometry(Metadata(64));
  ASSERT_NO_FATAL_FAILURE(Make(64));
  const int64_t empty = AllocatedBytes();
  EXPECT_LT(empty, static_cast<int64_t>(geometry.rows_offset) + 65536);
  Append(1, 64 * 64);
  uint64_t used = 0;
  for (const uint32_t block : log_->BlocksByAge()) used += log_->RowsBytes(block, 0, 64);
  EXPECT_LT(used, geometry.file_bytes / 2);
  EXPECT_LE(AllocatedBytes() - empty, static_cast<int64_t>(used) + 64 * 2 * 4096);
}

TEST_P(CompressedRowsTest, SmallRowsGiveBackWhatLargeOnesTook) {
  ASSERT_NO_FATAL_FAILURE(Make(4));
  const auto append = [this](uint64_t row, uint64_t count) {  // the same picture again and again
    for (uint64_t i = 0; i < count; ++i) {
      const std::string encoded = Encoded(1, row, 1);
      ASSERT_TRUE(log_->Reserve(1, encoded).ok());
      if (const uint32_t victim = log_->Victim(1); victim != kNoBlock) log_->Evict(victim);
      log_->Commit(log_->Stage(1, encoded), log_->counts());
    }
  };
  append(6, 4 * 64);  // noise
  const int64_t large = AllocatedBytes();
  append(0, 4 * 64);
  EXPECT_LT(AllocatedBytes(), large / 2);
  append(6, 4 * 64);
  EXPECT_EQ(AllocatedBytes(), large);
  ASSERT_NO_FATAL_FAILURE(Recover());
  append(0, 4 * 64);
  EXPECT_LT(AllocatedBytes(), large / 2);
}

TEST_P(CompressedRowsTest, WithoutSpaceNothingChangesAndLaterItGoesOn) {
  Scheduler scheduler;
  const auto table = OpenTable(&scheduler);
  ASSERT_TRUE(table.ok()) << table.status();
  const auto append = [&](uint64_t first, uint64_t count) {
    const std::string rows = Encoded(7, first, count);
    return (*table)->Append({{7, first, rows}}, 0, false).status();
  };
  ASSERT_TRUE(append(0, 64).ok());
  disk_is_full = true;
  const absl::Status refused = append(64, 10);
  disk_is_full = false;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_EQ((*table)->Held({7})[0].held_rows(), 64);
  EXPECT_EQ((*table)->Describe().rows(), 64);
  ASSERT_TRUE(append(64, 400).ok());
  EXPECT_EQ((*table)->Held({7})[0].held_rows(), 464);
}

TEST_P(EncodedRowsTest, ATableRefusesWhatIsNoWholeRow) {
  Scheduler scheduler;
  const auto table = OpenTable(&scheduler);
  ASSERT_TRUE(table.ok()) << table.status();
  const std::string rows = Encoded(7, 0, 3);
  for (size_t size = 0; size < rows.size(); size += 5) {
    if (size == codec_.sizes().First(rows) || codec_.sizes().FirstRows(rows, 2) == size) continue;
    const auto status = (*table)->Append({{7, 0, rows.substr(0, size)}}, 0, false).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_EQ((*table)->Held({7})[0].held_rows(), 0);
  // Rows that were there are left out, to the byte.
  ASSERT_TRUE((*table)->Append({{7, 0, rows}}, 0, false).ok());
  const std::string again = Encoded(7, 1, 5);
  ASSERT_TRUE((*table)->Append({{7, 1, again}}, 0, false).ok());
  EXPECT_EQ((*table)->Held({7})[0].held_rows(), 6);
  EXPECT_EQ((*table)->Describe().rows_duplicate(), 2);
}

INSTANTIATE_TEST_SUITE_P(All, CompressedRowsTest, ::testing::Values(proto::LZ4, proto::ZSTD),
                         [](const auto& info) { return proto::Compression_Name(info.param); });
INSTANTIATE_TEST_SUITE_P(All, EncodedRowsTest,
                         ::testing::Values(proto::COMPRESSION_NONE, proto::LZ4, proto::ZSTD),
                         [](const auto& info) { return proto::Compression_Name(info.param); });

TEST(EncodedLog, AnotherLayoutThanItsRowsIsRefused) {
  LogMetadata metadata;
  metadata.layout = FrameLayout(proto::LZ4).proto().SerializeAsString();
  metadata.stride_bytes = RowSizes(FrameLayout(proto::LZ4)).most();
  metadata.num_blocks = 1;
  metadata.has_encoded_rows = true;
  ASSERT_TRUE(ComputeGeometry(metadata).ok());
  metadata.stride_bytes -= 8;
  EXPECT_FALSE(ComputeGeometry(metadata).ok());
  metadata.layout = FrameLayout(proto::COMPRESSION_NONE).proto().SerializeAsString();
  metadata.stride_bytes = FrameLayout(proto::COMPRESSION_NONE).stride_bytes();
  EXPECT_FALSE(ComputeGeometry(metadata).ok());
  metadata.layout = "no layout";
  EXPECT_FALSE(ComputeGeometry(metadata).ok());
}

}  // namespace
}  // namespace troupe
