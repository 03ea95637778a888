#ifndef TROUPE_LEARNER_REPLICA_BUILDER_H_
#define TROUPE_LEARNER_REPLICA_BUILDER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/layout.h"
#include "learner/replica_store.h"
#include "learner/row_columns.h"

namespace troupe {

// Writes the rows of all streams into a replica, and the n-step transitions that they make.
//
// The windows are the shards': n_step + 1 rows of one stream, beginning where the table's rule lets
// them.  Rows take slots in the order in which they come, and the oldest are overwritten; what was
// completed by one of the newest `capacity_rows` rows can be drawn, and some more.  A row that
// comes again is left out.  Not thread-safe.
class ReplicaBuilder final {
 public:
  struct Options {
    int64_t n_step = 1;
    double gamma = 0.99;
    int64_t window_stride = 1;  // rows
    bool start_at_final_rows = false;
    uint64_t capacity_rows = 0;  // of all shards' tables together
  };

  // INVALID_ARGUMENT names a column that SAC cannot learn from; RESOURCE_EXHAUSTED: more rows than
  // a replica can number.
  static absl::StatusOr<ReplicaShape> ShapeFor(const Layout& layout, const Options& options);
  // `store` has that shape, and outlives the builder.
  static absl::StatusOr<std::unique_ptr<ReplicaBuilder>> Create(const Layout& layout,
                                                                const Options& options,
                                                                ReplicaStore* store);

  // Takes consecutive packed rows of a stream, a whole number of them.  Rows that do not follow the
  // stream's last one begin no window with it.  Errors are the store's.
  absl::Status Add(uint64_t stream, uint64_t first_row, absl::string_view rows);
  // Lets everything added be drawn.
  absl::Status Flush();

  // Transitions that can be drawn.
  uint64_t size() const { return shown_head_ - tail_; }
  // Rows that lie in the ring.
  uint64_t rows() const;
  // Ever: rows that came again, and rows of open windows that were copied, because they would have
  // been overwritten before their windows.
  uint64_t rows_duplicate() const { return rows_duplicate_; }
  uint64_t rows_copied() const { return rows_copied_; }

 private:
  // What a window needs of one of its rows.
  struct Step {
    uint64_t number = 0;  // of the row, in the order of the ring
    float reward = 0;
    uint32_t flags = 0;
  };
  // The last rows of a stream, at most n_step: those in which a window may still begin.
  struct Stream {
    uint64_t next_row = 0;
    uint64_t newest_number = 0;
    int64_t held = 0;
    std::vector<Step> steps;    // row r at r % n_step
    std::vector<float> floats;  // likewise
  };
  // Rows from `number` on completed transitions from `head` on.
  struct Mark {
    uint64_t number = 0;
    uint64_t head = 0;
  };

  ReplicaBuilder(const Options& options, ReplicaStore* store) : options_(options), store_(store) {}
  absl::Status FindColumns(const Layout& layout);
  void AddRow(const uint8_t* packed, Stream* stream);
  void ReadRow(const uint8_t* packed, float* to) const;
  void Complete(const Stream& stream, const Step& last);
  // Writes the rows of `stream` once more if they are old.
  void RenewRows(Stream* stream);
  uint64_t TakeNumber();
  absl::Status WriteStagedRows();
  void ForgetOldStreams();
  // How far the last row of a transition may come behind its first one.
  uint64_t longest_age() const;

  const Options options_;
  ReplicaStore* const store_;
  int64_t stride_bytes_ = 0;
  ColumnLayout observation_, action_, reward_;
  std::vector<float> action_center_, action_scale_;

  absl::flat_hash_map<uint64_t, Stream> streams_;
  uint64_t next_number_ = 0;  // of the next row; its slot is that % capacity
  uint64_t tail_ = 0;         // transitions before this are given up
  uint64_t head_ = 0;         // the next transition
  uint64_t shown_head_ = 0;   // as the store knows
  std::deque<Mark> marks_;
  uint64_t streams_looked_at_ = 0;  // next_number_ when old ones were last forgotten
  // Not in the store yet.
  std::vector<float> staged_rows_;
  std::vector<ReplicaTransition> staged_transitions_;
  uint64_t rows_duplicate_ = 0;
  uint64_t rows_copied_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_REPLICA_BUILDER_H_
