#include "replay_server/shard.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "replay_server/shard_id.h"

namespace troupe {
namespace {

constexpr size_t kMaxRunBytes = 256;

// Table names become file names.
absl::Status CheckTableName(const std::string& name) {
  bool ok = !name.empty() && name.size() <= 64;
  for (const char c : name) ok = ok && (absl::ascii_isalnum(c) || c == '_' || c == '-');
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("table name '", name, "': 1 to 64 letters, digits, '_' and '-' are allowed"));
}

}  // namespace

Shard::Shard(const ShardOptions& options)
    : options_(options),
      calls_(options.max_streams),
      snapshots_(absl::StrCat(options.data_dir, "/snapshot"), options.ack_disk),
      budget_(options.message_budget_bytes, &scheduler_) {}

// Tables post to the scheduler.
Shard::~Shard() { tables_.clear(); }

absl::Status Shard::Recover() {
  absl::StatusOr<DirectoryLock> directory_lock =
      DirectoryLock::Acquire(options_.data_dir, options_.ack_disk);
  if (!directory_lock.ok()) return directory_lock.status();
  directory_lock_ = *std::move(directory_lock);
  const absl::StatusOr<uint64_t> id = ReadOrMakeShardId(options_.data_dir);
  if (!id.ok()) return id.status();
  id_ = *id;
  if (absl::Status status = snapshots_.Recover(); !status.ok()) {
    spdlog::error("snapshot dropped: {}", status.ToString());
  }
  std::string run;
  if (SnapshotPtr snapshot = snapshots_.newest()) run = snapshot->run;
  for (TableOptions table_options : options_.tables) {
    if (absl::Status status = CheckTableName(table_options.name); !status.ok()) return status;
    table_options.path = absl::StrCat(options_.data_dir, "/", table_options.name, ".rows");
    table_options.ack_disk = options_.ack_disk;
    table_options.disk_sync = options_.disk_sync;
    absl::StatusOr<std::unique_ptr<Table>> table = Table::Make(table_options, &scheduler_);
    if (!table.ok()) return table.status();
    const std::string table_run = (*table)->run();
    if (!run.empty() && !table_run.empty() && table_run != run) {
      return absl::FailedPreconditionError(absl::StrCat("data directory ", options_.data_dir,
                                                        " holds two runs, '", run, "' and '",
                                                        table_run, "'"));
    }
    if (!table_run.empty()) run = table_run;
    const proto::TableDescription found = (*table)->Describe();
    spdlog::info("table '{}': {} rows recovered, {} corrupt blocks dropped", found.name(),
                 found.rows(), found.corrupt_blocks());
    tables_.push_back(*std::move(table));
  }
  {
    absl::MutexLock lock(&mu_);
    run_ = run;
  }
  State recovering = State::kRecovering;  // a drain meanwhile wins
  state_.compare_exchange_strong(recovering, State::kServing);
  return absl::OkStatus();
}

void Shard::Drain() {
  state_ = State::kDraining;
  calls_.DrainAll();
}

absl::Status Shard::CheckServing() const {
  switch (state_.load()) {
    case State::kRecovering:
      return absl::UnavailableError("this shard is recovering its rows");
    case State::kDraining:
      return DrainingError();
    case State::kServing:
      break;
  }
  return absl::OkStatus();
}

absl::Status Shard::CheckRun(const std::string& run) const {
  absl::MutexLock lock(&mu_);
  if (run.empty() || run_.empty() || run == run_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this shard holds run '", run_, "', not '", run, "'"));
}

absl::Status Shard::ClaimRun(const std::string& run) {
  if (run.empty() || run.size() > kMaxRunBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of a run has 1 to ", kMaxRunBytes, " bytes, not ", run.size()));
  }
  if (absl::Status status = CheckRun(run); !status.ok()) return status;
  absl::MutexLock lock(&mu_);
  if (run_.empty()) run_ = run;
  if (run_ == run) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this shard holds run '", run_, "', not '", run, "'"));
}

absl::StatusOr<Table*> Shard::FindTable(const std::string& name) const {
  for (const std::unique_ptr<Table>& table : tables_) {
    if (table->options().name == name) return table.get();
  }
  return absl::NotFoundError(absl::StrCat(
      "no table '", name, "'; there are: ",
      absl::StrJoin(tables_, ", ", [](std::string* out, const std::unique_ptr<Table>& table) {
        absl::StrAppend(out, "'", table->options().name, "'");
      })));
}

void Shard::NoteEnd(const absl::Status& status) const {
  const bool refused = !status.ok() && !absl::IsCancelled(status);
  if (refused && options_.observe_refusal) options_.observe_refusal(status.code());
}

namespace {

uint32_t WritersToDrain(absl::Span<const proto::CallDescription> calls) {
  return static_cast<uint32_t>(
      std::count_if(calls.begin(), calls.end(), [](const proto::CallDescription& call) {
        return call.method() == "Append" && !call.table().empty() && !call.drained();
      }));
}

}  // namespace

std::vector<proto::CallDescription> Shard::DescribeCalls() const {
  std::vector<proto::CallDescription> calls;
  calls_.ForEach([&](Call& call) { calls.push_back(call.Describe()); });
  return calls;
}

uint32_t Shard::SetDraining(bool draining) {
  if (draining_.exchange(draining) != draining) {
    spdlog::info(draining ? "draining: writers are turned away" : "taking writers again");
    calls_.ForEach([](Call& call) { call.NoteDraining(); });
  }
  return WritersToDrain(DescribeCalls());
}

proto::DescribeReply Shard::Describe(bool with_calls) const {
  proto::DescribeReply reply;
  {
    absl::MutexLock lock(&mu_);
    reply.set_run(run_);
  }
  for (const std::unique_ptr<Table>& table : tables_) *reply.add_tables() = table->Describe();
  reply.set_snapshot_version(snapshots_.newest_version());
  reply.set_max_epoch(snapshots_.max_epoch());
  reply.set_message_bytes(budget_.taken_bytes());
  reply.set_message_budget_bytes(budget_.size_bytes());
  reply.set_messages_wait_for(budget_.WhyWaits());
  reply.set_shard(id());
  reply.set_draining(draining_);
  if (draining_ || with_calls) {
    const std::vector<proto::CallDescription> calls = DescribeCalls();
    if (draining_) reply.set_writers_to_drain(WritersToDrain(calls));
    if (with_calls) reply.mutable_calls()->Add(calls.begin(), calls.end());
  }
  reply.set_ack_level(options_.ack_disk ? "disk" : "process");
  return reply;
}

}  // namespace troupe
