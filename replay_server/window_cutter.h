#ifndef TROUPE_REPLAY_SERVER_WINDOW_CUTTER_H_
#define TROUPE_REPLAY_SERVER_WINDOW_CUTTER_H_

#include <cstdint>
#include <vector>

#include "replay_server/row_log.h"

namespace troupe {

// A window is `length` consecutive rows of one stream; it may start at every row whose number is
// a multiple of `stride`, and at a final row only if `start_at_final_rows`.  It may cross the end
// of an episode.
struct WindowRule {
  uint32_t length = 2;  // rows, at least 1
  uint32_t stride = 1;  // rows, at least 1
  bool start_at_final_rows = false;
};

// Windows of one block by the slots they start at.
struct BlockMask {
  uint32_t block = kNoBlock;
  uint64_t mask = 0;
};

// Finds the windows that rows complete.  Immutable, so thread-safe.
class WindowCutter final {
 public:
  explicit WindowCutter(const WindowRule& rule) : rule_(rule) {}

  const WindowRule& rule() const { return rule_; }

  // Appends the windows whose last row is one of `rows` to `out`, oldest block last.  `rows` are
  // staged in `log`, or committed; rows before them that are not in the log begin no window.
  void Cut(const RowLog& log, const StagedRows& rows, std::vector<BlockMask>* out) const;

 private:
  // Bits of the rows in [begin, end) where the rule lets a window start, of a block whose slot 0
  // is row `base`.  REQUIRES: base <= begin < end <= base + 64.
  uint64_t Starts(uint64_t base, uint64_t begin, uint64_t end, uint64_t finals) const;

  const WindowRule rule_;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_WINDOW_CUTTER_H_
