#include "replay_server/selectable_windows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/layout.h"

namespace troupe {
namespace {

constexpr float kMaxPriority = 1e30f;

bool IsPriority(float value) { return value >= 0 && value <= kMaxPriority; }

std::unique_ptr<Selector> NewSelector(const TableOptions& options, uint32_t num_blocks) {
  switch (options.selector) {
    case proto::FIFO:
      return NewFifoSelector(num_blocks);
    case proto::LIFO:
      return NewLifoSelector(num_blocks);
    case proto::PRIORITIZED:
      return NewPrioritizedSelector(num_blocks, options.priority_exponent);
    case proto::MAX_HEAP:
      return NewMaxHeapSelector(num_blocks);
    case proto::MIN_HEAP:
      return NewMinHeapSelector(num_blocks);
    case proto::UNIFORM:
    case proto::SELECTOR_UNSPECIFIED:
      break;
  }
  return NewUniformSelector(num_blocks);
}

}  // namespace

bool HasPriorities(proto::SelectorKind selector) {
  return selector == proto::PRIORITIZED || selector == proto::MAX_HEAP ||
         selector == proto::MIN_HEAP;
}

absl::Status CheckPriorities(const proto::PriorityUpdates& updates) {
  if (updates.row_ids_size() != updates.priorities_size()) {
    return absl::InvalidArgumentError(absl::StrCat(updates.row_ids_size(), " row ids have ",
                                                   updates.priorities_size(), " priorities"));
  }
  for (int i = 0; i < updates.priorities_size(); ++i) {
    if (IsPriority(updates.priorities(i))) continue;
    return absl::InvalidArgumentError(absl::StrCat("priority ", updates.priorities(i),
                                                   " of row id ", updates.row_ids(i),
                                                   ": must be from 0 to ", kMaxPriority));
  }
  return absl::OkStatus();
}

SelectableWindows::SelectableWindows(const TableOptions& options, RowLog* log)
    : max_times_sampled_(options.max_times_sampled),
      tracks_times_(options.max_times_sampled > 0 || options.rate_limit.queue_length > 0),
      priority_zero_is_out_(options.selector == proto::PRIORITIZED),
      log_(log),
      selector_(NewSelector(options, log->num_blocks())) {
  if (selector_->UsesPriorities()) NoteStoredPriorities();
}

void SelectableWindows::NoteStoredPriorities() {
  for (uint32_t block = 0; block < log_->num_blocks(); ++block) {
    if (log_->row_count(block) == 0) continue;
    for (uint32_t slot = 0; slot < kRowsPerBlock; ++slot) {
      float& stored = log_->priority(block, slot);
      if (!IsPriority(stored)) stored = 0;  // damaged
      max_priority_ = std::max(max_priority_, stored);
    }
  }
}

void SelectableWindows::Add(const BlockMask& windows) {
  BlockMask added = windows;
  if (tracks_times_) {
    for (uint64_t rest = windows.mask; rest != 0; rest &= rest - 1) {
      const int slot = std::countr_zero(rest);
      const uint8_t times = log_->times_sampled(windows.block, slot);
      if (max_times_sampled_ > 0 && times >= max_times_sampled_) {
        added.mask &= ~(uint64_t{1} << slot);
      } else if (times == 0) {
        unsampled_++;
      }
    }
  }
  if (added.mask == 0) return;
  selector_->Add(added.block, added.mask, FirstPriorities(added));
  size_ += std::popcount(added.mask);
  draws_left_ += DrawsLeft(added);
}

uint64_t SelectableWindows::DrawsLeft(const BlockMask& windows) const {
  if (max_times_sampled_ == 0) return 0;
  uint64_t draws = 0;
  for (uint64_t rest = windows.mask; rest != 0; rest &= rest - 1) {
    const int slot = std::countr_zero(rest);
    if (priority_zero_is_out_ && log_->priority(windows.block, slot) == 0) continue;
    draws += max_times_sampled_ - log_->times_sampled(windows.block, slot);
  }
  return draws;
}

// A stored priority of 0 is none yet; -0 is a window that is never to be drawn.
absl::Span<const float> SelectableWindows::FirstPriorities(const BlockMask& windows) {
  if (!selector_->UsesPriorities()) return {};
  for (uint64_t rest = windows.mask; rest != 0; rest &= rest - 1) {
    const int slot = std::countr_zero(rest);
    float& stored = log_->priority(windows.block, slot);
    if (stored == 0 && !std::signbit(stored)) {
      const float own = ReadRowHeader(log_->row(windows.block, slot)).priority;
      stored = own > 0 && IsPriority(own) ? own : max_priority_;
      max_priority_ = std::max(max_priority_, stored);
    }
    first_priorities_[slot] = stored;
  }
  return first_priorities_;
}

void SelectableWindows::RemoveBlock(uint32_t block) {
  const uint64_t mask = selector_->Mask(block);
  if (tracks_times_) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      if (log_->times_sampled(block, std::countr_zero(rest)) == 0) unsampled_--;
    }
  }
  draws_left_ -= DrawsLeft({block, mask});
  selector_->Remove(block, mask);
  size_ -= std::popcount(mask);
}

int64_t SelectableWindows::MaxBatch() const {
  const int64_t selectable = selector_->MaxBatch();
  return max_times_sampled_ == 0 ? selectable
                                 : std::min(selectable, static_cast<int64_t>(draws_left_));
}

// False: the window has had its number already.
bool SelectableWindows::CountDrawn(const Selection& selection) {
  uint8_t& times = log_->times_sampled(selection.block, selection.slot);
  if (max_times_sampled_ > 0 && times >= max_times_sampled_) return false;
  if (times == 0) unsampled_--;
  if (times < 255) times++;
  if (max_times_sampled_ > 0) {
    draws_left_--;
    if (times == max_times_sampled_) {
      selector_->Remove(selection.block, uint64_t{1} << selection.slot);
      size_--;
    }
  }
  return true;
}

absl::Span<const Selection> SelectableWindows::Draw(uint64_t n) {
  selections_.clear();
  if (!tracks_times_) {
    selector_->Select(static_cast<int64_t>(n), random_, &selections_);
    return selections_;
  }
  while (selections_.size() < n) {
    // A window drawn twice may have reached its limit the first time: then another is drawn.
    drawn_.clear();
    selector_->Select(static_cast<int64_t>(n - selections_.size()), random_, &drawn_);
    for (const Selection& selection : drawn_) {
      if (CountDrawn(selection)) selections_.push_back(selection);
    }
  }
  return selections_;
}

PriorityOutcome SelectableWindows::SetPriorities(const proto::PriorityUpdates& updates) {
  const auto num_updates = static_cast<uint64_t>(updates.row_ids_size());
  if (!selector_->UsesPriorities()) return {.unknown = num_updates};
  changes_.clear();
  for (int i = 0; i < updates.row_ids_size(); ++i) {
    const std::optional<uint32_t> block = log_->FindBlock(updates.row_ids(i));
    const auto slot = static_cast<uint32_t>(updates.row_ids(i) % kRowsPerBlock);
    if (!block.has_value() || (selector_->Mask(*block) >> slot & 1) == 0) continue;
    const BlockMask window = {*block, uint64_t{1} << slot};
    const float priority = updates.priorities(i);
    draws_left_ -= DrawsLeft(window);
    log_->priority(*block, slot) = priority == 0 ? -0.0f : priority;
    draws_left_ += DrawsLeft(window);
    max_priority_ = std::max(max_priority_, priority);
    changes_.push_back({*block, slot, priority});
  }
  selector_->SetPriorities(changes_);
  return {.updated = changes_.size(), .unknown = num_updates - changes_.size()};
}

}  // namespace troupe
