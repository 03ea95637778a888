#include "replay_server/window_cutter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

// (stream, number of the first row) of every window.
using Windows = std::set<std::pair<uint64_t, uint64_t>>;

// A log and the windows that a cutter found in it, less the evicted ones.
class CutLog final {
 public:
  CutLog(const TempDir& dir, uint64_t num_blocks, const WindowRule& rule)
      : log_(MakeLog(dir.File("rows"), num_blocks)), cutter_(rule) {}

  void Append(uint64_t stream, uint64_t count, const std::set<uint64_t>& finals = {}) {
    AppendRows(
        log_.get(), stream, Rows(stream, log_->HeldRows(stream), count, finals),
        [this](uint32_t victim) { masks_[victim] = 0; },
        [this](const StagedRows& staged) {
          streams_[staged.block] = staged.stream;
          std::vector<BlockMask> completed;
          cutter_.Cut(*log_, staged, &completed);
          for (const BlockMask& windows : completed) {
            EXPECT_EQ(masks_[windows.block] & windows.mask, 0u) << "a window was completed twice";
            masks_[windows.block] |= windows.mask;
          }
        });
  }

  Windows Found() const {
    Windows found;
    for (const auto& [block, mask] : masks_) {
      for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
        found.emplace(streams_.at(block), log_->base_row(block) + std::countr_zero(rest));
      }
    }
    return found;
  }

  // By the definition: W rows that are all here, begun where the rule allows.
  Windows Expected() const {
    std::map<std::pair<uint64_t, uint64_t>, bool> is_final;
    for (const uint32_t block : log_->BlocksByAge()) {
      const uint32_t first_slot = log_->first_row(block) % kRowsPerBlock;
      for (uint32_t slot = first_slot; slot < first_slot + log_->row_count(block); ++slot) {
        const TestRow row = RowAt(log_->row(block, slot), 0);
        is_final[{row.stream, row.row}] = IsFinal(row.header.flags);
      }
    }
    const WindowRule& rule = cutter_.rule();
    Windows expected;
    for (const auto& [start, start_is_final] : is_final) {
      if (start.second % rule.stride != 0) continue;
      if (start_is_final && !rule.start_at_final_rows) continue;
      bool whole = true;
      for (uint64_t k = 1; k < rule.length && whole; ++k) {
        whole = is_final.contains({start.first, start.second + k});
      }
      if (whole) expected.insert(start);
    }
    return expected;
  }

 private:
  std::unique_ptr<RowLog> log_;
  const WindowCutter cutter_;
  std::map<uint32_t, uint64_t> masks_;
  std::map<uint32_t, uint64_t> streams_;
};

TEST(WindowCutterTest, ATransitionMayEndButNotStartAtAFinalRow) {
  TempDir dir;
  CutLog log(dir, 4, {.length = 2});
  log.Append(1, 5, {2});
  EXPECT_EQ(log.Found(), (Windows{{1, 0}, {1, 1}, {1, 3}}));
}

TEST(WindowCutterTest, ASequenceMayStartAtAFinalRowIfTheRuleSaysSo) {
  TempDir dir;
  CutLog log(dir, 4, {.length = 2, .stride = 2, .start_at_final_rows = true});
  log.Append(1, 6, {2});
  EXPECT_EQ(log.Found(), (Windows{{1, 0}, {1, 2}, {1, 4}}));
}

TEST(WindowCutterTest, AWindowMaySpanSeveralBlocks) {
  TempDir dir;
  CutLog log(dir, 8, {.length = 130, .stride = 64});
  log.Append(1, 129);
  EXPECT_EQ(log.Found(), Windows());
  log.Append(2, 10);
  log.Append(1, 65);
  EXPECT_EQ(log.Found(), (Windows{{1, 0}, {1, 64}}));
}

TEST(WindowCutterTest, AWindowNeverReachesOverEvictedRows) {
  TempDir dir;
  CutLog log(dir, 2, {.length = 4});
  log.Append(1, 10);
  log.Append(2, 128);  // evicts them
  log.Append(1, 5);    // rows 10 to 14
  EXPECT_TRUE(log.Found().contains({1, 10}));
  EXPECT_FALSE(log.Found().contains({1, 9}));
  EXPECT_EQ(log.Found(), log.Expected());
}

class WindowCutterRuleTest : public ::testing::TestWithParam<WindowRule> {};

TEST_P(WindowCutterRuleTest, FindsWhatTheDefinitionSaysOverRandomAppendsAndEvictions) {
  TempDir dir;
  CutLog log(dir, 6, GetParam());
  std::mt19937_64 random(1);
  for (int step = 0; step < 300; ++step) {
    std::set<uint64_t> finals;
    for (uint64_t row = random() % 20; row < 20'000; row += 1 + random() % 60) finals.insert(row);
    log.Append(1 + random() % 3, 1 + random() % 90, finals);
    ASSERT_EQ(log.Found(), log.Expected()) << "after step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rules, WindowCutterRuleTest,
    testing::Values(WindowRule{.length = 1}, WindowRule{.length = 2}, WindowRule{.length = 4},
                    WindowRule{.length = 2, .stride = 3},
                    WindowRule{.length = 65, .stride = 64, .start_at_final_rows = true},
                    WindowRule{.length = 33, .stride = 16, .start_at_final_rows = true},
                    WindowRule{.length = 150, .stride = 7},
                    WindowRule{.length = 3, .stride = 100, .start_at_final_rows = true}),
    [](const auto& info) {
      return absl::StrCat("Length", info.param.length, "Stride", info.param.stride);
    });

}  // namespace
}  // namespace troupe
