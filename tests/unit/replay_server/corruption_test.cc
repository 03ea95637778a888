// Recovery of files whose bytes were changed at rest.  Whatever was changed: no crash, no row that
// is not the one appended under its number, no loss outside the blocks that were changed, and every
// loss counted.
//
// Of these bytes nothing is held to be counted, as no row is lost with them: how often windows were
// sampled, priorities, padding, rows and headers that are not used, rows that were never committed,
// older commits of a block, and counts, of which the older ones are taken.  A commit whose check
// has become zero, or a generation that says evicted, is lost without being counted: it reads as
// one that was never made.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <vector>

#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

// A file that is damaged again and again.
class DamagedFile final {
 public:
  DamagedFile(std::string path, std::string sound) : path_(std::move(path)), sound_(sound) {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  }
  ~DamagedFile() { close(fd_); }

  absl::StatusOr<std::unique_ptr<RowLog>> Recover(absl::string_view bytes) {
    EXPECT_EQ(pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes.size())), 0);
    return RowLog::Recover(path_);
  }
  const std::string& sound() const { return sound_; }

 private:
  const std::string path_;
  const std::string sound_;
  int fd_;
};

class CorruptionTest : public ::testing::Test {
 protected:
  // What a block of the sound log holds.
  struct Block {
    uint64_t stream = 0;
    uint64_t first_row = 0;
    uint32_t row_count = 0;
  };

  void Note(RowLog& log) {
    geometry_ = ComputeGeometry(log.metadata()).value();
    for (uint32_t block = 0; block < log.num_blocks(); ++block) {
      blocks_.push_back({log.stream(block), log.first_row(block), log.row_count(block)});
    }
    header_bytes_ = EncodeFileHeader(log.metadata()).size();
  }
  std::string Sound() const {
    std::stringstream bytes;
    bytes << std::ifstream(path_, std::ios::binary).rdbuf();
    return bytes.str();
  }

  // The block whose header or rows the byte belongs to; kNoBlock: none.
  uint32_t BlockAt(uint64_t offset) const {
    const uint64_t headers_end = geometry_.headers_offset + blocks_.size() * sizeof(BlockHeader);
    if (offset >= geometry_.headers_offset && offset < headers_end) {
      return (offset - geometry_.headers_offset) / sizeof(BlockHeader);
    }
    if (offset < geometry_.rows_offset) return kNoBlock;
    return (offset - geometry_.rows_offset) / (kRowsPerBlock * kTestStride);
  }

  // `touched`: the blocks that were changed.
  void Check(RowLog& log, const std::set<uint32_t>& touched, bool is_cut = false,
             const std::set<uint32_t>& wiped = {}) {
    uint64_t blocks_with_losses = 0;
    for (uint32_t block = 0; block < blocks_.size(); ++block) {
      const Block& sound = blocks_[block];
      ASSERT_LE(log.row_count(block), sound.row_count) << "block " << block;
      if (log.row_count(block) < sound.row_count) {
        ASSERT_TRUE(touched.contains(block)) << "block " << block << " lost rows";
        blocks_with_losses += !wiped.contains(block);
      }
      if (log.row_count(block) == 0) continue;
      ASSERT_EQ(log.stream(block), sound.stream);
      ASSERT_EQ(log.first_row(block), sound.first_row);
      const std::string rows = Rows(sound.stream, sound.first_row, log.row_count(block));
      ASSERT_EQ(memcmp(log.row(block, sound.first_row % kRowsPerBlock), rows.data(), rows.size()),
                0)
          << "block " << block << " serves a wrong row";
    }
    ASSERT_GE(log.corrupt_blocks(), blocks_with_losses);
    ASSERT_LE(log.corrupt_blocks(), touched.size());
    ASSERT_EQ(log.losses().empty(), log.corrupt_blocks() == 0 && !is_cut);
  }

  TempDir dir_;
  const std::string path_ = dir_.File("rows");
  std::vector<Block> blocks_;
  LogGeometry geometry_;
  uint64_t header_bytes_ = 0;
};

// Two blocks: one of many commits that ends in the middle of a block, one that is full.
TEST_F(CorruptionTest, AnyOneBitOfASmallLogMayFlip) {
  {
    std::unique_ptr<RowLog> log = MakeLog(path_, 3);
    AppendRows(log.get(), 1, Rows(1, 0, 64));
    for (uint64_t row = 0; row < 5; ++row) AppendRows(log.get(), 2, Rows(2, row, 1));
    Note(*log);
  }
  DamagedFile file(dir_.File("damaged"), Sound());
  std::string bytes = file.sound();
  for (uint64_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const uint64_t offset = bit / 8;
    bytes[offset] = static_cast<char>(bytes[offset] ^ 1 << bit % 8);
    SCOPED_TRACE(testing::Message() << "bit " << bit % 8 << " of byte " << offset);
    absl::StatusOr<std::unique_ptr<RowLog>> log = file.Recover(bytes);
    if (offset < header_bytes_) {
      ASSERT_FALSE(log.ok());
      ASSERT_THAT(log.status().message(), HasSubstr("damaged"));  // the file's name
    } else {
      ASSERT_TRUE(log.ok()) << log.status();
      std::set<uint32_t> touched;
      if (BlockAt(offset) != kNoBlock) touched.insert(BlockAt(offset));
      Check(**log, touched);
    }
    if (HasFatalFailure()) return;
    bytes[offset] = file.sound()[offset];
  }
}

class LargeCorruptionTest : public CorruptionTest {
 protected:
  LargeCorruptionTest() {
    std::unique_ptr<RowLog> log = MakeLog(path_, 40);
    std::map<uint64_t, uint64_t> held;
    while (log->rows_evicted() < 300) {
      const uint64_t stream = 1 + random_() % 5;
      const uint64_t count = 1 + random_() % 30;
      AppendRows(log.get(), stream, Rows(stream, held[stream], count));
      held[stream] += count;
    }
    Note(*log);
  }

  // Anywhere, but often where the headers are, which are the smaller part.
  uint64_t RandomOffset(uint64_t file_bytes) {
    if (random_() % 2 == 0) return header_bytes_ + random_() % (file_bytes - header_bytes_);
    return geometry_.headers_offset + random_() % (blocks_.size() * sizeof(BlockHeader));
  }
  // Bits, or a range of bytes, that are not what they were.
  void Damage(std::string* bytes, std::set<uint32_t>* touched) {
    for (uint64_t left = 1 + random_() % 4; left > 0; --left) {
      const uint64_t offset = RandomOffset(bytes->size());
      const uint64_t size = random_() % 4 == 0 ? 1 + random_() % 1000 : 1;
      const uint64_t what = random_() % 3;
      for (uint64_t i = offset; i < std::min(offset + size, bytes->size()); ++i) {
        char& byte = (*bytes)[i];
        byte = static_cast<char>(what == 0 ? byte ^ 1 << random_() % 8 : what == 1 ? 0 : random_());
        if (BlockAt(i) != kNoBlock) touched->insert(BlockAt(i));
      }
    }
  }

  // The blocks that have a commit whose check is zero now, or are evicted now.
  std::set<uint32_t> Wiped(const std::string& sound, const std::string& damaged) const {
    std::set<uint32_t> wiped;
    for (uint32_t block = 0; block < blocks_.size(); ++block) {
      const uint64_t begin = geometry_.headers_offset + block * sizeof(BlockHeader);
      BlockHeader was;
      BlockHeader is;
      memcpy(&was, sound.data() + begin, sizeof(was));
      memcpy(&is, damaged.data() + begin, sizeof(is));
      bool is_wiped = is.generation == kEvicted;
      for (int i = 0; i < kCommitSlots; ++i) {
        is_wiped = is_wiped || (is.slots[i].check == 0 && was.slots[i].check != 0);
      }
      if (is_wiped) wiped.insert(block);
    }
    return wiped;
  }

  std::mt19937_64 random_{1};
};

TEST_F(LargeCorruptionTest, AnythingMayBeDamagedAnywhere) {
  DamagedFile file(dir_.File("damaged"), Sound());
  uint64_t losses = 0;
  for (int i = 0; i < 8'000; ++i) {
    std::string bytes = file.sound();
    std::set<uint32_t> touched;
    Damage(&bytes, &touched);
    SCOPED_TRACE(testing::Message() << "damage " << i);
    absl::StatusOr<std::unique_ptr<RowLog>> log = file.Recover(bytes);
    ASSERT_TRUE(log.ok()) << log.status();
    Check(**log, touched, /*is_cut=*/false, Wiped(file.sound(), bytes));
    if (HasFatalFailure()) return;
    losses += (*log)->corrupt_blocks();
  }
  EXPECT_GT(losses, 1'000);
}

TEST_F(LargeCorruptionTest, AFileCutShortAnywhereKeepsWhatLiesBeforeTheCut) {
  DamagedFile file(dir_.File("damaged"), Sound());
  for (int i = 0; i < 2'000; ++i) {
    const uint64_t size = random_() % file.sound().size();
    SCOPED_TRACE(testing::Message() << "cut to " << size << " bytes");
    absl::StatusOr<std::unique_ptr<RowLog>> log = file.Recover(file.sound().substr(0, size));
    if (size < geometry_.times_offset) {  // who knows what blocks there were?
      ASSERT_EQ(log.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ASSERT_TRUE(log.ok()) << log.status();
    std::set<uint32_t> touched;
    for (uint64_t at = std::max(size, geometry_.rows_offset); at < file.sound().size(); ++at) {
      touched.insert(BlockAt(at));
    }
    Check(**log, touched, /*is_cut=*/true);
    if (HasFatalFailure()) return;
    EXPECT_THAT((*log)->losses()[0], HasSubstr("cut off"));
    const uint64_t rows = (*log)->rows();
    log->reset();
    log = RowLog::Recover(dir_.File("damaged"));
    ASSERT_TRUE(log.ok()) << log.status();
    EXPECT_EQ((*log)->rows(), rows);
    EXPECT_EQ((*log)->corrupt_blocks(), 0) << "recovery left damage behind";
  }
}

}  // namespace
}  // namespace troupe
