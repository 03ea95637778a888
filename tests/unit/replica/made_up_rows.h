#ifndef TROUPE_TESTS_UNIT_REPLICA_MADE_UP_ROWS_H_
#define TROUPE_TESTS_UNIT_REPLICA_MADE_UP_ROWS_H_

#include <cstdint>
#include <string>
#include <tuple>

#include "tests/unit/learner/rows.h"

namespace troupe {

// Rows whose every value follows from their stream and number: the observation says both.
inline Layout MadeUpLayout() { return MakeLayout(2, {-2}, {6}); }

inline uint32_t MadeUpFlags(uint64_t stream, uint64_t row) {
  const uint64_t hash = (stream * 7919 + row + 1) * 0x9e3779b97f4a7c15 >> 40;
  if (hash % 9 != 0) return 0;
  const uint32_t flags[] = {kTerminated, kTruncated, kCut, kTerminated | kTruncated};
  return flags[hash / 9 % 4];
}

inline Row MadeUpRow(uint64_t stream, uint64_t row) {
  return {.observation = {static_cast<float>(stream), static_cast<float>(row)},
          .action = {static_cast<float>(row % 9) - 2},
          .reward = static_cast<float>(stream) + static_cast<float>(row % 100) / 8,
          .flags = MadeUpFlags(stream, row)};
}

inline std::string MadeUpRows(uint64_t stream, uint64_t first, uint64_t count) {
  std::vector<Row> rows;
  for (uint64_t row = first; row < first + count; ++row) rows.push_back(MadeUpRow(stream, row));
  const std::vector<uint8_t> bytes = Pack(MadeUpLayout(), rows);
  return {bytes.begin(), bytes.end()};
}

// A transition by the stream and the rows that it leads from and to, its action, return, discount.
using MadeUpTransition = std::tuple<uint64_t, uint64_t, uint64_t, float, float, float>;

// The one of the window that begins with the row.
inline MadeUpTransition MadeUpWindow(uint64_t stream, uint64_t row, int64_t n_step, double gamma) {
  const Row first = MadeUpRow(stream, row);
  double reward = 0;
  double discount = 1;
  uint64_t last = row;
  do {
    reward += discount * MadeUpRow(stream, last).reward;
    discount *= gamma;
    ++last;
  } while (last < row + n_step && !IsFinal(MadeUpFlags(stream, last)));
  if ((MadeUpFlags(stream, last) & kTerminated) != 0) discount = 0;
  return {stream,
          row,
          last,
          (first.action[0] - 2) / 4,
          static_cast<float>(reward),
          static_cast<float>(discount)};
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_REPLICA_MADE_UP_ROWS_H_
