#ifndef TROUPE_REPLAY_SERVER_SELECTABLE_WINDOWS_H_
#define TROUPE_REPLAY_SERVER_SELECTABLE_WINDOWS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "proto/replay.pb.h"
#include "replay_server/row_log.h"
#include "replay_server/selectors/interface.h"
#include "replay_server/table_options.h"
#include "replay_server/window_cutter.h"

namespace troupe {

// What became of new priorities.
struct PriorityOutcome {
  uint64_t updated = 0;
  uint64_t unknown = 0;  // ids that named no window
};

// Does the log of a table with this selector hold priorities?
bool HasPriorities(proto::SelectorKind selector);

// INVALID_ARGUMENT: a priority that is none, or not one for each id.
absl::Status CheckPriorities(const proto::PriorityUpdates& updates);

// The windows of a log that may be drawn, in a selector.  How often each was drawn and its priority
// are kept in the log, where they outlive the process.
//
// Not thread-safe: guarded by its table's mutex.
class SelectableWindows final {
 public:
  // Without windows, but knowing the priorities in the log, which outlives it.
  SelectableWindows(const TableOptions& options, RowLog* log);

  // Adds windows, but for those that were drawn their number of times before a restart.
  void Add(const BlockMask& windows);
  // Removes the windows that start in a block.
  void RemoveBlock(uint32_t block);
  // Draws n windows and counts that; valid until the next draw.  REQUIRES: n <= MaxBatch().
  absl::Span<const Selection> Draw(uint64_t n);
  // REQUIRES: CheckPriorities() is OK.
  PriorityOutcome SetPriorities(const proto::PriorityUpdates& updates);

  uint64_t size() const { return size_; }
  // Of them, never drawn; 0 if no limit asks for it.
  uint64_t unsampled() const { return unsampled_; }
  // The most that can be drawn now.
  int64_t MaxBatch() const;
  double Mass() const { return selector_->Mass(); }
  float max_priority() const { return max_priority_; }

 private:
  void NoteStoredPriorities();
  absl::Span<const float> FirstPriorities(const BlockMask& windows);
  // How often windows of one block may still be drawn; 0 without max_times_sampled.
  uint64_t DrawsLeft(const BlockMask& windows) const;
  bool CountDrawn(const Selection& selection);

  const uint8_t max_times_sampled_;
  const bool tracks_times_;          // are windows counted by how often they were drawn?
  const bool priority_zero_is_out_;  // is a window of priority 0 never drawn?
  RowLog* const log_;
  const std::unique_ptr<Selector> selector_;
  absl::BitGen random_;
  uint64_t size_ = 0;
  uint64_t unsampled_ = 0;
  uint64_t draws_left_ = 0;  // until all windows reach max_times_sampled
  float max_priority_ = 1;   // of any window ever: new ones begin at it
  // Scratch.
  std::vector<Selection> selections_;
  std::vector<Selection> drawn_;
  std::vector<PriorityChange> changes_;
  std::array<float, kRowsPerBlock> first_priorities_ = {};
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SELECTABLE_WINDOWS_H_
