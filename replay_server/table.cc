#include "replay_server/table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/version.h"

namespace troupe {
namespace {

// Rows are numbered below this.
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;

constexpr float kMaxPriority = 1e30f;

uint64_t BlocksFor(uint64_t capacity_rows) {
  return (capacity_rows + kRowsPerBlock - 1) / kRowsPerBlock;
}

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

bool HasPriorities(proto::SelectorKind selector) {
  return selector == proto::PRIORITIZED || selector == proto::MAX_HEAP ||
         selector == proto::MIN_HEAP;
}

bool IsPriority(float value) { return value >= 0 && value <= kMaxPriority; }

absl::StatusOr<Layout> StoredLayout(const RowLog& log) {
  proto::Layout layout;
  if (!layout.ParseFromString(log.metadata().layout)) {
    return absl::DataLossError("the row log's layout is malformed");
  }
  return Layout::FromProto(layout);
}

std::string StreamName(uint64_t stream) {
  return absl::StrCat(absl::Hex(stream, absl::kZeroPad16));
}

}  // namespace

Table::Table(const TableOptions& options, Scheduler* scheduler)
    : options_(options),
      cutter_(options.window),
      limiter_(options.rate_limit),
      tracks_times_(options.max_times_sampled > 0 || options.rate_limit.queue_length > 0),
      scheduler_(scheduler) {
  if (options_.ack_disk) StartDiskSync();
}

absl::StatusOr<std::unique_ptr<Table>> Table::Make(const TableOptions& options,
                                                   Scheduler* scheduler) {
  std::unique_ptr<Table> table(new Table(options, scheduler));
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Recover(options.path);
  if (absl::IsNotFound(log.status())) return table;
  if (!log.ok()) return log.status();
  if ((*log)->num_blocks() != BlocksFor(options.capacity_rows)) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.path, " was made for ", (*log)->num_blocks() * uint64_t{kRowsPerBlock},
                     " rows, but capacity_rows of table '", options.name, "' is ",
                     options.capacity_rows, ": set it back, or take another data directory"));
  }
  if ((*log)->metadata().has_priorities != HasPriorities(options.selector)) {
    return absl::FailedPreconditionError(absl::StrCat(
        options.path, " was made for a selector ",
        (*log)->metadata().has_priorities ? "with" : "without", " priorities, but that of table '",
        options.name, "' is ", proto::SelectorKind_Name(options.selector),
        ": set it back, or take another data directory"));
  }
  absl::StatusOr<Layout> layout = StoredLayout(**log);
  if (!layout.ok() || layout->stride_bytes() != static_cast<int64_t>((*log)->stride_bytes())) {
    return absl::DataLossError(absl::StrCat(options.path, ": layout and stride do not match"));
  }
  if (absl::Status status = table->SyncRecovered(log->get()); !status.ok()) return status;
  absl::MutexLock lock(&table->mu_);
  table->layout_ = *std::move(layout);
  table->Adopt(*std::move(log));
  return table;
}

// Takes the log over and finds the windows in it.
void Table::Adopt(std::unique_ptr<RowLog> log) {
  log_ = std::move(log);
  selector_ = NewSelector(options_, log_->num_blocks());
  pins_ = std::make_unique<std::atomic<uint32_t>[]>(log_->num_blocks());
  const std::vector<uint32_t> blocks = log_->BlocksByAge();
  NoteStoredPriorities(blocks);
  for (const uint32_t block : blocks) {
    StagedRows rows = {.block = block};
    rows.first_slot = log_->first_row(block) % kRowsPerBlock;
    rows.count = log_->row_count(block);
    completed_.clear();
    cutter_.Cut(*log_, rows, &completed_);
    std::reverse(completed_.begin(), completed_.end());
    for (const BlockMask& windows : completed_) AddWindows(windows.block, windows.mask);
  }
  if (log_->counts_lost()) CountLostCounts();
  TakeShare();
}

// What the log's counts must have been about, so that the limiter blocks neither side.
void Table::CountLostCounts() {
  LogCounts counts;
  for (uint32_t block = 0; block < log_->num_blocks(); ++block) {
    counts.rows_appended += log_->row_count(block);
    counts.env_steps += log_->row_count(block) - std::popcount(log_->finals(block));
    counts.inserted += std::popcount(selector_->Mask(block));
  }
  const RateLimit& limit = limiter_.limit();
  const double earned = limit.samples_per_insert * (static_cast<double>(counts.inserted) -
                                                    static_cast<double>(limit.min_size));
  counts.sampled = static_cast<uint64_t>(std::max(0.0, earned));
  log_->CommitCounts(counts);
}

std::string Table::run() const {
  absl::MutexLock lock(&mu_);
  return log_ == nullptr ? "" : log_->metadata().run;
}

absl::Status Table::CheckLayout(const Layout& layout) const {
  absl::MutexLock lock(&mu_);
  return layout_.has_value() ? layout_->CheckSame(layout) : absl::OkStatus();
}

absl::Status Table::Open(const std::string& run, const Layout& layout) {
  absl::MutexLock lock(&mu_);
  if (layout_.has_value()) return layout_->CheckSame(layout);
  LogMetadata metadata;
  metadata.run = run;
  metadata.table = options_.name;
  metadata.layout = layout.proto().SerializeAsString();
  metadata.stride_bytes = layout.stride_bytes();
  metadata.num_blocks = BlocksFor(options_.capacity_rows);
  metadata.has_priorities = HasPriorities(options_.selector);
  absl::StatusOr<std::unique_ptr<RowLog>> log =
      RowLog::Create(options_.path, metadata, options_.ack_disk);
  if (!log.ok()) return log.status();
  if (options_.ack_disk) {
    (*log)->KeepSynced();
    if (absl::Status status = (*log)->Sync(); !status.ok()) return status;
  }
  layout_ = layout;
  Adopt(*std::move(log));
  return absl::OkStatus();
}

std::vector<proto::StreamAck> Table::Held(absl::Span<const uint64_t> streams) const {
  absl::MutexLock lock(&mu_);
  std::vector<proto::StreamAck> acks;
  acks.reserve(streams.size());
  for (const uint64_t stream : streams) {
    proto::StreamAck& ack = acks.emplace_back();
    ack.set_stream(stream);
    ack.set_held_rows(log_ == nullptr ? 0 : log_->HeldRows(stream));
  }
  return acks;
}

absl::Status Table::CheckRuns(absl::Span<const RowRunView> runs) const {
  absl::flat_hash_map<uint64_t, uint64_t> held;
  for (const RowRunView& run : runs) {
    const uint64_t stride = log_->stride_bytes();
    if (run.rows.empty() || run.rows.size() % stride != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(run.rows.size(), " bytes of stream ", StreamName(run.stream),
                       " are not a whole number of rows of ", stride, " bytes"));
    }
    const uint64_t num_rows = run.rows.size() / stride;
    if (run.first_row > kMaxRowNumber - num_rows) {
      return absl::InvalidArgumentError(absl::StrCat(
          "stream ", StreamName(run.stream), ": row number ", run.first_row, " is too large"));
    }
    const auto [entry, is_new] = held.try_emplace(run.stream, 0);
    if (is_new) entry->second = log_->HeldRows(run.stream);
    if (run.first_row > entry->second) {
      return absl::FailedPreconditionError(absl::StrCat(
          "gap in stream ", StreamName(run.stream), " of table '", options_.name,
          "': ", entry->second, " rows are held, so row ", run.first_row, " cannot be next"));
    }
    entry->second = std::max(entry->second, run.first_row + num_rows);
  }
  return options_.never_evict ? CheckRoom(held) : absl::OkStatus();
}

// Is there an empty block for every one that these streams need to hold so many rows?
absl::Status Table::CheckRoom(const absl::flat_hash_map<uint64_t, uint64_t>& wanted) const {
  uint64_t blocks = 0;
  for (const auto& [stream, rows] : wanted) blocks += log_->BlocksNeeded(stream, rows);
  if (blocks <= log_->EmptyBlocksAhead(blocks)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("table '", options_.name, "' is full and never evicts: ", log_->rows(), " of ",
                   options_.capacity_rows, " rows are held, in blocks of ", kRowsPerBlock, ", and ",
                   blocks, " more blocks are needed"));
}

absl::StatusOr<std::vector<proto::StreamAck>> Table::Append(absl::Span<const RowRunView> runs,
                                                            uint64_t newest_version, bool preload) {
  std::vector<uint64_t> streams;
  {
    absl::MutexLock lock(&mu_);
    if (log_ == nullptr) return absl::InternalError("appended to a table that is not open");
    if (absl::Status status = CheckRuns(runs); !status.ok()) return status;
    for (const RowRunView& run : runs) {
      Store(run, newest_version, preload);
      turns_.NoteRows(run.rows.size());
      if (streams.empty() || streams.back() != run.stream) streams.push_back(run.stream);
    }
    WakeAdmitted();
    WakeFollowers();
  }
  return Held(streams);
}

void Table::Store(RowRunView run, uint64_t newest_version, bool preload) {
  const uint64_t stride = log_->stride_bytes();
  const uint64_t duplicates =
      std::min(log_->HeldRows(run.stream) - run.first_row, run.rows.size() / stride);
  run.rows.remove_prefix(duplicates * stride);
  LogCounts counts = log_->counts();
  counts.rows_duplicate += duplicates;
  if (run.rows.empty()) log_->CommitCounts(counts);
  while (!run.rows.empty()) {
    if (const uint32_t victim = log_->Victim(run.stream); victim != kNoBlock) EvictBlock(victim);
    const StagedRows staged = log_->Stage(run.stream, run.rows);
    completed_.clear();
    cutter_.Cut(*log_, staged, &completed_);
    for (const BlockMask& windows : completed_) {
      (preload ? counts.preloaded : counts.inserted) += std::popcount(windows.mask);
    }
    counts.rows_appended += staged.count;
    counts.env_steps += staged.count - std::popcount(staged.finals);
    log_->Commit(staged, counts);
    NoteCommit(staged.block);
    std::reverse(completed_.begin(), completed_.end());
    for (const BlockMask& windows : completed_) AddWindows(windows.block, windows.mask);
    NoteVersions(staged, newest_version);
    run.rows.remove_prefix(staged.count * stride);
  }
}

void Table::NoteVersions(const StagedRows& staged, uint64_t newest_version) {
  const PolicyVersion newest = PolicyVersion::Unpack(newest_version);
  for (uint32_t i = 0; i < staged.count; ++i) {
    const RowHeader header = ReadRowHeader(log_->row(staged.block, staged.first_slot + i));
    const PolicyVersion version = PolicyVersion::Unpack(header.policy_version);
    // Counters of different epochs do not compare.
    if (header.policy_version == 0 || version.epoch != newest.epoch) continue;
    version_lag_rows_++;
    if (version.counter < newest.counter) version_lag_sum_ += newest.counter - version.counter;
  }
}

void Table::EvictBlock(uint32_t block) {
  RemoveWindows(block);
  NoteEviction(block);
  // At most the copy of one batch, and only if it holds windows of the oldest block of all.
  std::atomic<uint32_t>& pins = pins_[block];
  for (uint32_t held = pins.load(std::memory_order_acquire); held != 0;
       held = pins.load(std::memory_order_acquire)) {
    pins.wait(held, std::memory_order_acquire);
  }
  log_->Evict(block);
}

void Table::AddWindows(uint32_t block, uint64_t mask) {
  if (tracks_times_) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      const int slot = std::countr_zero(rest);
      const uint8_t times = log_->times_sampled(block, slot);
      if (options_.max_times_sampled > 0 && times >= options_.max_times_sampled) {
        mask &= ~(uint64_t{1} << slot);
      } else if (times == 0) {
        unsampled_++;
      }
    }
  }
  if (mask == 0) return;
  selector_->Add(block, mask, FirstPriorities(block, mask));
  selectable_ += std::popcount(mask);
  draws_left_ += DrawsLeft(block, mask);
}

// A window of priority 0 is never drawn.
uint64_t Table::DrawsLeft(uint32_t block, uint64_t mask) const {
  if (options_.max_times_sampled == 0) return 0;
  uint64_t draws = 0;
  for (; mask != 0; mask &= mask - 1) {
    const int slot = std::countr_zero(mask);
    if (options_.selector == proto::PRIORITIZED && log_->priority(block, slot) == 0) continue;
    draws += options_.max_times_sampled - log_->times_sampled(block, slot);
  }
  return draws;
}

// A stored priority of 0 is none yet; -0 is a window that is never to be drawn.
absl::Span<const float> Table::FirstPriorities(uint32_t block, uint64_t mask) {
  if (!selector_->UsesPriorities()) return {};
  for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
    const int slot = std::countr_zero(rest);
    float& stored = log_->priority(block, slot);
    if (stored == 0 && !std::signbit(stored)) {
      const float own = ReadRowHeader(log_->row(block, slot)).priority;
      stored = own > 0 && IsPriority(own) ? own : max_priority_;
      max_priority_ = std::max(max_priority_, stored);
    }
    first_priorities_[slot] = stored;
  }
  return first_priorities_;
}

void Table::NoteStoredPriorities(absl::Span<const uint32_t> blocks) {
  if (!selector_->UsesPriorities()) return;
  for (const uint32_t block : blocks) {
    for (uint32_t slot = 0; slot < kRowsPerBlock; ++slot) {
      float& stored = log_->priority(block, slot);
      if (!IsPriority(stored)) stored = 0;  // damaged
      max_priority_ = std::max(max_priority_, stored);
    }
  }
}

absl::StatusOr<PriorityOutcome> Table::UpdatePriorities(const proto::PriorityUpdates& updates) {
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
  absl::MutexLock lock(&mu_);
  PriorityOutcome outcome;
  if (log_ == nullptr || !selector_->UsesPriorities()) {
    outcome.unknown = updates.row_ids_size();
    priorities_.unknown += outcome.unknown;
    return outcome;
  }
  changes_.clear();
  for (int i = 0; i < updates.row_ids_size(); ++i) {
    const std::optional<uint32_t> block = log_->FindBlock(updates.row_ids(i));
    const auto slot = static_cast<uint32_t>(updates.row_ids(i) % kRowsPerBlock);
    if (!block.has_value() || (selector_->Mask(*block) >> slot & 1) == 0) continue;
    const float priority = updates.priorities(i);
    draws_left_ -= DrawsLeft(*block, uint64_t{1} << slot);
    log_->priority(*block, slot) = priority == 0 ? -0.0f : priority;
    draws_left_ += DrawsLeft(*block, uint64_t{1} << slot);
    max_priority_ = std::max(max_priority_, priority);
    changes_.push_back({*block, slot, priority});
  }
  selector_->SetPriorities(changes_);
  outcome.updated = changes_.size();
  outcome.unknown = updates.row_ids_size() - outcome.updated;
  priorities_.updated += outcome.updated;
  priorities_.unknown += outcome.unknown;
  WakeAdmitted();  // samplers, if there were only windows of priority 0
  return outcome;
}

void Table::RemoveWindows(uint32_t block) {
  const uint64_t mask = selector_->Mask(block);
  if (tracks_times_) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      if (log_->times_sampled(block, std::countr_zero(rest)) == 0) unsampled_--;
    }
  }
  draws_left_ -= DrawsLeft(block, mask);
  selector_->Remove(block, mask);
  selectable_ -= std::popcount(mask);
}

}  // namespace troupe
