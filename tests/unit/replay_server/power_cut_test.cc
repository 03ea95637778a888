// A row log on a disk that keeps what was synced and any part of what came later.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

constexpr uint64_t kNumBlocks = 32;
constexpr uint64_t kMaxUnsyncedRows = 64 * 4;
constexpr uint64_t kNumStreams = 4;
constexpr size_t kSectorWords = 512 / sizeof(uint64_t);

using Words = std::vector<uint64_t>;
using RowKey = std::pair<uint64_t, uint64_t>;  // stream, number

// What is on the disk under a file that a process stores into.  A sector gets there as a whole, or,
// as whoever reads a page while it is stored into sees it, in part: then in words of 8 bytes.
class Disk final {
 public:
  Disk(std::string path, std::mt19937_64* random) : path_(std::move(path)), random_(*random) {}

  // All of it was synced.
  void Reset() { words_ = Memory(); }
  void BeginSync() {
    at_begin_ = Memory();
    newer_.assign(words_.size(), false);
  }
  // What was stored before BeginSync is there, unless something newer is.
  void EndSync() {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (!newer_[i]) words_[i] = at_begin_[i];
    }
    newer_.clear();
  }
  // The kernel writes some of what has changed.
  void WriteSome() {
    const Words memory = Memory();
    const uint64_t percent = random_() % 101;
    for (size_t sector = 0; sector < words_.size(); sector += kSectorWords) {
      const size_t end = std::min(sector + kSectorWords, words_.size());
      if (std::equal(memory.begin() + sector, memory.begin() + end, words_.begin() + sector)) {
        continue;
      }
      if (random_() % 100 >= percent) continue;
      const bool torn = random_() % 2 == 0;
      for (size_t i = sector; i < end; ++i) {
        if (torn && random_() % 2 == 0) continue;
        words_[i] = memory[i];
        if (!newer_.empty()) newer_[i] = true;
      }
    }
  }
  // The file after a loss of power now.
  Words Cut() {
    WriteSome();
    return words_;
  }

 private:
  Words Memory() const {
    std::ifstream file(path_, std::ios::binary | std::ios::ate);
    Words words(file.tellg() / sizeof(uint64_t));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(words.data()), words.size() * sizeof(uint64_t));
    return words;
  }

  const std::string path_;
  std::mt19937_64& random_;
  Words words_;
  Words at_begin_;
  std::vector<bool> newer_;  // words written since BeginSync; empty: no sync is under way
};

// Appends at random to a log, syncs it now and then, and cuts the power.
class Life final {
 public:
  explicit Life(uint64_t seed) : random_(seed), disk_(path_, &random_) {
    log_ = MakeLog(path_, kNumBlocks);
    Begin();
  }

  // Runs until a cut, and recovers.
  void RunUntilCut() {
    steps_until_cut_ = 1 + random_() % 60;
    while (!cut_.has_value()) Step();
    log_ = nullptr;
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(cut_->image.data()),
               cut_->image.size() * sizeof(uint64_t));
    log_ = RecoverLog(path_);
    Check();
    cut_.reset();
    Begin();
  }
  uint64_t acked_rows_checked() const { return acked_rows_checked_; }

 private:
  struct Cut {
    Words image;
    std::set<RowKey> acked;  // and not evicted
  };

  // As a server that has just recovered: synced before it serves.
  void Begin() {
    log_->KeepSynced();
    disk_.Reset();
    syncing_ = false;
    acked_.clear();
    for (uint64_t stream = 1; stream <= kNumStreams; ++stream) {
      acked_[stream] = log_->HeldRows(stream);
    }
    ++life_;
  }

  void Step() {
    const uint64_t what = random_() % 10;
    if (what < 5) {
      Append(1 + random_() % kNumStreams, 1 + random_() % (random_() % 2 == 0 ? 8 : 90));
    } else if (what < 8) {
      syncing_ ? EndSync() : BeginSync();
    } else {
      disk_.WriteSome();
    }
    Tick();
  }

  // A moment at which the power may go.
  void Tick() {
    if (random_() % 4 == 0) disk_.WriteSome();
    if (cut_.has_value() || --steps_until_cut_ > 0) return;
    cut_.emplace();
    cut_->image = disk_.Cut();
    for (const uint32_t block : log_->BlocksByAge()) {
      const uint64_t stream = log_->stream(block);
      for (uint64_t i = 0; i < log_->row_count(block); ++i) {
        const uint64_t row = log_->first_row(block) + i;
        if (row < acked_[stream]) cut_->acked.emplace(stream, row);
      }
    }
  }

  void Append(uint64_t stream, uint64_t count) {
    unsynced_rows_ += count;
    if (unsynced_rows_ > kMaxUnsyncedRows) {  // a writer waits for its acks
      if (!syncing_) BeginSync();
      EndSync();
      unsynced_rows_ = count;
    }
    const uint64_t first = log_->HeldRows(stream);
    for (uint64_t row = first; row < first + count; ++row) written_in_[{stream, row}] = life_;
    AppendRows(
        log_.get(), stream, Rows(stream, first, count, {}, life_),
        [this](uint32_t victim) {
          uint64_t& evicted = evicted_[log_->stream(victim)];
          evicted = std::max(evicted, log_->first_row(victim) + log_->row_count(victim));
          Tick();
        },
        [this](const StagedRows&) { Tick(); });
  }

  void BeginSync() {
    log_->BeginSync();
    disk_.BeginSync();
    syncing_ = true;
    for (const auto& [stream, rows] : acked_) covered_[stream] = log_->HeldRows(stream);
  }
  void EndSync() {
    disk_.EndSync();
    log_->EndSync();
    syncing_ = false;
    acked_ = covered_;
  }

  // Every acked row is there, and every row that is there is the one that was last appended.
  void Check() {
    std::set<RowKey> found;
    for (const uint32_t block : log_->BlocksByAge()) {
      for (uint64_t i = 0; i < log_->row_count(block); ++i) {
        const RowKey key = {log_->stream(block), log_->first_row(block) + i};
        const TestRow row = RowAt(log_->row(block, key.second % kRowsPerBlock), 0);
        ASSERT_EQ(row.stream, key.first);
        ASSERT_EQ(row.row, key.second);
        ASSERT_EQ(row.header.policy_version, written_in_.at(key)) << "a row of an earlier life";
        ASSERT_TRUE(found.insert(key).second) << "row " << key.second << " twice";
      }
    }
    for (const RowKey& key : cut_->acked) {
      ASSERT_TRUE(found.contains(key))
          << "row " << key.second << " of stream " << key.first << " was acked and is lost";
    }
    acked_rows_checked_ += cut_->acked.size();
    // What is told as held is never sent again.
    for (uint64_t stream = 1; stream <= kNumStreams; ++stream) {
      auto row = found.lower_bound({stream, 0});
      if (row == found.end() || row->first != stream) continue;
      for (uint64_t number = row->second; number < log_->HeldRows(stream); ++number) {
        if (number < evicted_[stream]) continue;
        ASSERT_TRUE(found.contains({stream, number})) << "a gap at row " << number;
      }
      const uint64_t first = found.lower_bound({stream, 0})->second;
      ASSERT_LE(first, std::max(acked_[stream], evicted_[stream]))
          << "rows before " << first << " were never acked";
    }
  }

  TempDir dir_;
  const std::string path_ = dir_.File("rows");
  std::mt19937_64 random_;
  Disk disk_;
  std::unique_ptr<RowLog> log_;
  bool syncing_ = false;
  uint64_t unsynced_rows_ = 0;
  uint64_t life_ = 0;
  int64_t steps_until_cut_ = 0;
  std::map<uint64_t, uint64_t> acked_;    // rows by stream
  std::map<uint64_t, uint64_t> covered_;  // by the sync under way
  std::map<uint64_t, uint64_t> evicted_;  // rows below, of each stream
  std::map<RowKey, uint64_t> written_in_;
  std::optional<Cut> cut_;
  uint64_t acked_rows_checked_ = 0;
};

TEST(PowerCutTest, WhatAFinishedSyncCoversIsThereAfterACutAtAnyMoment) {
  uint64_t acked_rows_checked = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Life life(seed);
    for (int cut = 0; cut < 10; ++cut) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << ", cut " << cut);
      life.RunUntilCut();
      if (::testing::Test::HasFatalFailure()) return;
    }
    acked_rows_checked += life.acked_rows_checked();
  }
  EXPECT_GT(acked_rows_checked, 100'000);
}

}  // namespace
}  // namespace troupe
