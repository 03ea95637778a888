#include "replay_server/table.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/version.h"

namespace troupe {
namespace {

// Rows are numbered below this.
constexpr uint64_t kMaxRowNumber = uint64_t{1} << 56;

uint64_t BlocksFor(uint64_t capacity_rows) {
  return (capacity_rows + kRowsPerBlock - 1) / kRowsPerBlock;
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

// Is there an empty block for every one that these streams need to hold so many rows?
absl::Status CheckRoom(const TableOptions& options, const RowLog& log,
                       const absl::flat_hash_map<uint64_t, uint64_t>& wanted) {
  uint64_t blocks = 0;
  for (const auto& [stream, rows] : wanted) blocks += log.BlocksNeeded(stream, rows);
  if (blocks <= log.EmptyBlocksAhead(blocks)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("table '", options.name, "' is full and never evicts: ", log.rows(), " of ",
                   options.capacity_rows, " rows are held, in blocks of ", kRowsPerBlock, ", and ",
                   blocks, " more blocks are needed"));
}

absl::Status CheckRuns(const TableOptions& options, const RowLog& log,
                       absl::Span<const RowRunView> runs) {
  absl::flat_hash_map<uint64_t, uint64_t> held;
  for (const RowRunView& run : runs) {
    const std::optional<uint64_t> count = log.row_sizes().Count(run.rows);
    if (run.rows.empty() || !count.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(run.rows.size(), " bytes of stream ", StreamName(run.stream),
                       " are not a whole number of rows of ", log.stride_bytes(), " bytes",
                       log.row_sizes().all_alike() ? "" : " at most"));
    }
    const uint64_t num_rows = *count;
    if (run.first_row > kMaxRowNumber - num_rows) {
      return absl::InvalidArgumentError(absl::StrCat(
          "stream ", StreamName(run.stream), ": row number ", run.first_row, " is too large"));
    }
    const auto [entry, is_new] = held.try_emplace(run.stream, 0);
    if (is_new) entry->second = log.HeldRows(run.stream);
    if (run.first_row > entry->second) {
      return absl::FailedPreconditionError(absl::StrCat(
          "gap in stream ", StreamName(run.stream), " of table '", options.name,
          "': ", entry->second, " rows are held, so row ", run.first_row, " cannot be next"));
    }
    entry->second = std::max(entry->second, run.first_row + num_rows);
  }
  return options.never_evict ? CheckRoom(options, log, held) : absl::OkStatus();
}

// What the counts of a log that lost them must have been about, so that the limiter blocks neither
// side.
LogCounts CountsFor(const RowLog& log, uint64_t windows, const RateLimit& limit) {
  LogCounts counts;
  for (uint32_t block = 0; block < log.num_blocks(); ++block) {
    counts.rows_appended += log.row_count(block);
    counts.env_steps += log.row_count(block) - std::popcount(log.finals(block));
  }
  counts.inserted = windows;
  const double earned = limit.samples_per_insert *
                        (static_cast<double>(windows) - static_cast<double>(limit.min_size));
  counts.sampled = static_cast<uint64_t>(std::max(0.0, earned));
  return counts;
}

// `log` may be null.
std::vector<proto::StreamAck> HeldRows(const RowLog* log, absl::Span<const uint64_t> streams) {
  std::vector<proto::StreamAck> acks;
  acks.reserve(streams.size());
  for (const uint64_t stream : streams) {
    proto::StreamAck& ack = acks.emplace_back();
    ack.set_stream(stream);
    ack.set_held_rows(log == nullptr ? 0 : log->HeldRows(stream));
  }
  return acks;
}

}  // namespace

Table::Table(const TableOptions& options, Scheduler* scheduler)
    : options_(options),
      cutter_(options.window),
      limiter_(options.rate_limit),
      scheduler_(scheduler),
      num_shards_(options.num_shards),
      waiting_(scheduler),
      followers_(scheduler) {
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
  if (!layout.ok() || RowSizes(*layout).most() != (*log)->stride_bytes()) {
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
  windows_ = std::make_unique<SelectableWindows>(options_, log_.get());
  pins_ = std::make_unique<std::atomic<uint32_t>[]>(log_->num_blocks());
  for (const uint32_t block : log_->BlocksByAge()) {
    StagedRows rows = {.block = block};
    rows.first_slot = log_->first_row(block) % kRowsPerBlock;
    rows.count = log_->row_count(block);
    completed_.clear();
    cutter_.Cut(*log_, rows, &completed_);
    AddCompleted();
  }
  if (log_->counts_lost()) log_->CommitCounts(CountsFor(*log_, windows_->size(), limiter_.limit()));
  TakeShare();
}

void Table::AddCompleted() {
  std::reverse(completed_.begin(), completed_.end());
  for (const BlockMask& windows : completed_) windows_->Add(windows);
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
  metadata.stride_bytes = RowSizes(layout).most();
  metadata.has_encoded_rows = layout.has_compressed_columns();
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
  return HeldRows(log_.get(), streams);
}

absl::StatusOr<std::vector<proto::StreamAck>> Table::Append(absl::Span<const RowRunView> runs,
                                                            uint64_t newest_version, bool preload) {
  std::vector<uint64_t> streams;
  absl::MutexLock lock(&mu_);
  if (log_ == nullptr) return absl::InternalError("appended to a table that is not open");
  if (absl::Status status = CheckRuns(options_, *log_, runs); !status.ok()) return status;
  absl::Status stored;
  for (const RowRunView& run : runs) {
    stored = Store(run, newest_version, preload);
    if (!stored.ok()) break;
    waiting_.NoteRows(run.rows.size());
    if (streams.empty() || streams.back() != run.stream) streams.push_back(run.stream);
  }
  WakeAdmitted();
  followers_.Wake();
  if (!stored.ok()) return stored;
  return HeldRows(log_.get(), streams);
}

absl::Status Table::Store(RowRunView run, uint64_t newest_version, bool preload) {
  const RowSizes& sizes = log_->row_sizes();
  const uint64_t duplicates =
      std::min(log_->HeldRows(run.stream) - run.first_row, *sizes.Count(run.rows));
  run.rows.remove_prefix(*sizes.FirstRows(run.rows, duplicates));
  LogCounts counts = log_->counts();
  counts.rows_duplicate += duplicates;
  if (run.rows.empty()) log_->CommitCounts(counts);
  while (!run.rows.empty()) {
    if (!sizes.all_alike()) {
      absl::Status reserved = log_->Reserve(run.stream, run.rows);
      if (!reserved.ok()) return reserved;
    }
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
    followers_.NoteCommit(*log_, staged.block);
    AddCompleted();
    NoteVersions(staged, newest_version);
    run.rows.remove_prefix(staged.size_bytes);
  }
  return absl::OkStatus();
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
  windows_->RemoveBlock(block);
  followers_.NoteEviction(*log_, block);
  // At most the copy of one batch, and only if it holds windows of the oldest block of all.
  std::atomic<uint32_t>& pins = pins_[block];
  for (uint32_t held = pins.load(std::memory_order_acquire); held != 0;
       held = pins.load(std::memory_order_acquire)) {
    pins.wait(held, std::memory_order_acquire);
  }
  log_->Evict(block);
}

absl::StatusOr<PriorityOutcome> Table::UpdatePriorities(const proto::PriorityUpdates& updates) {
  if (absl::Status status = CheckPriorities(updates); !status.ok()) return status;
  absl::MutexLock lock(&mu_);
  PriorityOutcome outcome = {.unknown = static_cast<uint64_t>(updates.row_ids_size())};
  if (windows_ != nullptr) outcome = windows_->SetPriorities(updates);
  priorities_.updated += outcome.updated;
  priorities_.unknown += outcome.unknown;
  WakeAdmitted();  // samplers, if there were only windows of priority 0
  return outcome;
}

}  // namespace troupe
