#ifndef TROUPE_TESTS_BENCH_REPLAY_ROWS_H_
#define TROUPE_TESTS_BENCH_REPLAY_ROWS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/layout.h"

namespace troupe {

// The rows of a load client: those of a MuJoCo task, except that the first three observations name
// the row's stream and number, so that whoever gets a window can tell whether it is one.

// "half_cheetah" (17 observations, 6 actions), "humanoid" (348, 17) or "pixels" (a frame of 84x84
// bytes).
absl::StatusOr<Layout> LayoutNamed(absl::string_view name);

// What is packed into a row once and then copied: rows that differ in every byte that matters to
// nobody.  Immutable; shared by the streams of a client.
struct RowPatterns {
  Layout layout;
  int64_t episode_rows;  // the last one of so many is a final row
  int64_t observation_offset, action_offset, action_and_reward_bytes;
  std::vector<uint8_t> bytes;  // kNumPatterns rows
};
absl::StatusOr<std::shared_ptr<const RowPatterns>> MakePatterns(const Layout& layout,
                                                                int64_t episode_rows,
                                                                bool with_priorities);

// The rows of one stream, one after the other.  Not thread-safe.
class RowSource final {
 public:
  RowSource(std::shared_ptr<const RowPatterns> patterns, uint64_t stream);

  uint64_t stream() const { return stream_; }
  uint64_t next_row() const { return next_row_; }
  int64_t stride_bytes() const { return patterns_->layout.stride_bytes(); }
  // Packs the next `num_rows` rows into `out`.
  void Pack(int64_t num_rows, uint8_t* out);

 private:
  std::shared_ptr<const RowPatterns> patterns_;
  uint64_t stream_;
  uint64_t next_row_ = 0;
};

// How many of `windows`, each of `length` rows, are not consecutive rows of one stream.
int64_t CountWrongWindows(const RowPatterns& patterns, absl::Span<const uint8_t> windows,
                          int64_t length);

// How many of `rows` are not the rows of `stream` from `first_row` on.
int64_t CountWrongRows(const RowPatterns& patterns, absl::Span<const uint8_t> rows, uint64_t stream,
                       uint64_t first_row);

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_ROWS_H_
