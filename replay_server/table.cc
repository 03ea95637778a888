#include "replay_server/table.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/version.h"

namespace troupe {
namespace {

// Rows are numbered below this.
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;

uint64_t BlocksFor(uint64_t capacity_rows) {
  return (capacity_rows + kRowsPerBlock - 1) / kRowsPerBlock;
}

std::unique_ptr<Selector> NewSelector(proto::SelectorKind kind, uint32_t num_blocks) {
  return kind == proto::FIFO ? NewFifoSelector(num_blocks) : NewUniformSelector(num_blocks);
}

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
      limiter_(options.rate_limiter),
      tracks_times_(options.max_times_sampled > 0 || options.rate_limiter.queue_length > 0),
      scheduler_(scheduler) {}

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
  absl::StatusOr<Layout> layout = StoredLayout(**log);
  if (!layout.ok() || layout->stride_bytes() != static_cast<int64_t>((*log)->stride_bytes())) {
    return absl::DataLossError(absl::StrCat(options.path, ": layout and stride do not match"));
  }
  absl::MutexLock lock(&table->mu_);
  table->layout_ = *std::move(layout);
  table->Adopt(*std::move(log));
  return table;
}

// Takes the log over and finds the windows in it.
void Table::Adopt(std::unique_ptr<RowLog> log) {
  log_ = std::move(log);
  selector_ = NewSelector(options_.selector, log_->num_blocks());
  pins_ = std::make_unique<std::atomic<uint32_t>[]>(log_->num_blocks());
  for (const uint32_t block : log_->BlocksByAge()) {
    StagedRows rows = {.block = block};
    rows.first_slot = log_->first_row(block) % kRowsPerBlock;
    rows.count = log_->row_count(block);
    completed_.clear();
    cutter_.Cut(*log_, rows, &completed_);
    std::reverse(completed_.begin(), completed_.end());
    for (const BlockMask& windows : completed_) AddWindows(windows.block, windows.mask);
  }
  TakeShare();
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
  absl::StatusOr<std::unique_ptr<RowLog>> log = RowLog::Create(options_.path, metadata);
  if (!log.ok()) return log.status();
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
  return absl::OkStatus();
}

absl::StatusOr<std::vector<proto::StreamAck>> Table::Append(absl::Span<const RowRunView> runs,
                                                            uint64_t newest_version) {
  std::vector<uint64_t> streams;
  {
    absl::MutexLock lock(&mu_);
    if (log_ == nullptr) return absl::InternalError("appended to a table that is not open");
    if (absl::Status status = CheckRuns(runs); !status.ok()) return status;
    for (const RowRunView& run : runs) {
      Store(run, newest_version);
      if (streams.empty() || streams.back() != run.stream) streams.push_back(run.stream);
    }
    WakeAdmitted();
  }
  return Held(streams);
}

void Table::Store(RowRunView run, uint64_t newest_version) {
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
    for (const BlockMask& windows : completed_) counts.inserted += std::popcount(windows.mask);
    counts.rows_appended += staged.count;
    counts.env_steps += staged.count - std::popcount(staged.finals);
    log_->Commit(staged, counts);
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
        continue;
      }
      if (times == 0) unsampled_++;
      if (options_.max_times_sampled > 0) draws_left_ += options_.max_times_sampled - times;
    }
  }
  if (mask != 0) selector_->Add(block, mask, {});
}

void Table::RemoveWindows(uint32_t block) {
  const uint64_t mask = selector_->Mask(block);
  if (tracks_times_) {
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
      const uint8_t times = log_->times_sampled(block, std::countr_zero(rest));
      if (times == 0) unsampled_--;
      if (options_.max_times_sampled > 0) draws_left_ -= options_.max_times_sampled - times;
    }
  }
  selector_->Remove(block, mask);
}

}  // namespace troupe
