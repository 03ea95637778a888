#include "replay_server/window_cutter.h"

#include <algorithm>

namespace troupe {

uint64_t WindowCutter::Starts(uint64_t base, uint64_t begin, uint64_t end, uint64_t finals) const {
  uint64_t mask = 0;
  if (rule_.stride == 1) {
    mask = SlotMask(static_cast<uint32_t>(begin - base), static_cast<uint32_t>(end - begin));
  } else {
    const uint64_t first = (begin + rule_.stride - 1) / rule_.stride * rule_.stride;
    for (uint64_t row = first; row < end; row += rule_.stride) mask |= uint64_t{1} << (row - base);
  }
  return rule_.start_at_final_rows ? mask : mask & ~finals;
}

void WindowCutter::Cut(const RowLog& log, const StagedRows& rows,
                       std::vector<BlockMask>* out) const {
  // Starts of the windows that end in `rows` are [begin, end).
  const uint64_t first_row = log.base_row(rows.block) + rows.first_slot;
  if (first_row + rows.count < rule_.length) return;
  const uint64_t end = first_row + rows.count - rule_.length + 1;
  const uint64_t begin = first_row < rule_.length ? 0 : first_row - rule_.length + 1;
  for (uint32_t block = rows.block; block != kNoBlock; block = log.previous(block)) {
    const uint64_t base = log.base_row(block);
    const uint64_t block_begin = std::max(begin, log.first_row(block));
    const uint64_t block_end = std::min(end, base + kRowsPerBlock);
    if (block_begin < block_end) {
      const uint64_t finals = log.finals(block) | (block == rows.block ? rows.finals : 0);
      const uint64_t mask = Starts(base, block_begin, block_end, finals);
      if (mask != 0) out->push_back({block, mask});
    }
    if (log.first_row(block) <= begin) break;
  }
}

}  // namespace troupe
