#ifndef TROUPE_TESTS_UNIT_TABLE_MODEL_REFERENCE_TABLE_H_
#define TROUPE_TESTS_UNIT_TABLE_MODEL_REFERENCE_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "replay_server/table.h"

namespace troupe {

// What a Table promises, in the plainest words: rows in a map, windows in a list, one row at a
// time, no file.  Slow.
class ReferenceTable final {
 public:
  // A window is named by its first row.
  using RowKey = std::pair<uint64_t, uint64_t>;  // stream, row number

  explicit ReferenceTable(const TableOptions& options);

  // OK or the code of the error; then nothing is changed.
  absl::StatusCode Append(absl::Span<const RowRunView> runs, bool preload);
  bool Admits(const SampleQuery& query) const;
  bool WritersMayWrite() const;
  // Takes part in what the table drew; returns what is wrong with it, or nothing.
  // `windows` may be empty: then the bytes are not looked at.  REQUIRES: Admits() so many.
  std::string NoteDrawn(const std::vector<uint64_t>& row_ids,
                        const std::vector<float>& probabilities, absl::string_view windows);
  // No value: refused.
  std::optional<PriorityOutcome> UpdatePriorities(const std::vector<uint64_t>& row_ids,
                                                  const std::vector<float>& priorities);
  void NoteOthers(uint64_t inserted, uint64_t preloaded, uint64_t sampled);
  // The process ends, and another one opens the same file.
  void Restart();
  // num_windows of the calls that wait for windows.
  void set_waiting_samplers(std::vector<uint64_t> waiting) { waiting_samplers_ = waiting; }

  uint64_t Held(uint64_t stream) const;
  const LogCounts& counts() const { return counts_; }
  uint64_t rows() const { return rows_.size(); }
  const std::vector<RowKey>& windows() const { return windows_; }
  uint64_t RowId(const RowKey& key) const;
  std::vector<uint64_t> RowIds() const;  // of all rows that are held
  double Mass() const;
  float max_priority() const { return max_priority_; }
  const PriorityOutcome& priorities() const { return priorities_; }
  // The most windows that one call may draw.
  uint64_t Available() const;
  bool IsOrdered() const;
  bool UsesPriorities() const;

 private:
  struct Row {
    std::string bytes;
    uint64_t block = 0;  // from 1, in the order in which blocks were begun
    bool is_final = false;
    float own_priority = 0;
    // Of the window that starts here.
    int times_sampled = 0;
    std::optional<float> priority;
  };

  absl::StatusCode CheckRuns(absl::Span<const RowRunView> runs) const;
  void Store(absl::Span<const RowRunView> runs, bool preload);
  void AppendRow(uint64_t stream, absl::string_view bytes, bool preload);
  void BeginBlock();
  void AddWindowThatEndsAt(const RowKey& last, bool preload);
  bool SampleFits(uint64_t n) const;
  void TakeShare();
  double WarmUp() const;    // m of common/rate_limit.h
  double Inserted() const;  // over all shards, likewise the next
  double Sampled() const;
  bool IsStarved() const;
  double Weight(const RowKey& window) const;
  // Does `a` come before `b`, which was added after it?  REQUIRES: IsOrdered().
  bool ComesFirst(const RowKey& a, const RowKey& b) const;
  std::vector<RowKey> InOrder() const;
  bool HasBytes(const RowKey& window, absl::string_view bytes) const;
  // Was the window drawn with this probability?  Empty, or why not.  `mass` before the draw, and
  // brought up to date if it must be.
  std::string CheckProbability(const RowKey& window, double probability, double* mass) const;
  bool CountDrawn(const RowKey& window);
  uint64_t Place(const RowKey& row) const;  // in the ring
  std::optional<RowKey> FindWindow(uint64_t row_id) const;

  const TableOptions options_;
  const uint64_t num_blocks_;
  uint64_t newest_block_ = 0;
  std::map<RowKey, Row> rows_;
  std::map<uint64_t, uint64_t> held_;
  std::vector<RowKey> windows_;  // that can be drawn, in the order in which they were added
  LogCounts counts_;
  PriorityOutcome priorities_;
  float max_priority_ = 1;
  uint64_t others_inserted_ = 0;
  uint64_t others_preloaded_ = 0;
  uint64_t others_sampled_ = 0;
  double insert_until_ = 0;
  std::vector<uint64_t> waiting_samplers_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_TABLE_MODEL_REFERENCE_TABLE_H_
