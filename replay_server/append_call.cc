#include "replay_server/append_call.h"

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/layout.h"

namespace troupe {
namespace {

constexpr int kMaxStreamsAsked = 65536;
// With more streams waiting for their ack than this, nothing is read until the writer has read
// its replies.
constexpr size_t kMaxAcksWaiting = 65536;
// What is set aside for a call that does not say how large its messages are.
constexpr uint64_t kUndeclaredMessageBytes = 256 << 10;
// What gRPC may hold for a call beside the message that is being read: the next ones, and a buffer
// for the socket.  More only while its quota, half of the budget, is not used up (server.cc).
constexpr uint64_t kTransportBytes = 128 << 10;

}  // namespace

AppendCall* AppendCall::Start(Shard* shard, Peer peer) {
  std::shared_ptr<AppendCall> call(new AppendCall(shard, std::move(peer)));
  call->Begin();
  return call.get();
}

void AppendCall::OnReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  if (ending_.has_value()) return;
  if (!ok) return End(absl::OkStatus());  // the writer has said all
  if (absl::Status status = HandleMessage(); !status.ok()) return End(status);
  read_due_ = true;
  ReadNext();
  WriteNext();
}

absl::Status AppendCall::HandleMessage() {
  if (table_ != nullptr && request_bytes_.Length() > max_message_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("a message of ", request_bytes_.Length(),
                                                     " bytes; this call was opened with ",
                                                     "max_message_bytes ", max_message_bytes_));
  }
  absl::Status status = request_.Parse(&request_bytes_);
  if (status.ok()) status = table_ == nullptr ? HandleOpen() : HandleRows();
  request_.Clear();
  return status;
}

absl::Status AppendCall::HandleOpen() {
  if (!request_.has_open() || !request_.runs().empty()) {
    return absl::InvalidArgumentError("the first request of Append holds `open` and no rows");
  }
  const proto::AppendOpen& open = request_.open();
  if (open.streams_size() > kMaxStreamsAsked) {
    return absl::InvalidArgumentError(
        absl::StrCat("asked for ", open.streams_size(), " streams, at most ", kMaxStreamsAsked));
  }
  absl::StatusOr<Layout> layout = Layout::FromProto(open.layout());
  if (!layout.ok()) return layout.status();
  absl::StatusOr<Table*> table = shard_->FindTable(open.table());
  if (!table.ok()) return table.status();
  if (absl::Status status = shard_->ClaimRun(open.run()); !status.ok()) return status;
  if (absl::Status status = TakeBudget(open.max_message_bytes()); !status.ok()) return status;
  if (absl::Status status = (*table)->Open(open.run(), *layout); !status.ok()) return status;
  table_ = *table;
  row_sizes_ = RowSizes(*layout);
  table_->CountAppendCall(1);
  preload_ = open.preload();
  streams_ = static_cast<uint32_t>(open.streams_size());
  draining_ = held_back_ = shard_->draining();
  synced_ = [weak = weak_from_this()] {
    if (auto call = std::static_pointer_cast<AppendCall>(weak.lock())) call->Synced();
  };
  Ack(table_->Held(open.streams()), 0);
  return absl::OkStatus();
}

absl::Status AppendCall::TakeBudget(uint64_t declared_bytes) {
  const uint64_t bytes = declared_bytes > 0 ? declared_bytes : kUndeclaredMessageBytes;
  MessageBudget& budget = shard_->budget();
  if (bytes > budget.size_bytes() || !budget.Take(bytes + kTransportBytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for another writer with messages of ", bytes, " bytes and ",
                     kTransportBytes, " for its connection: ", budget.taken_bytes(),
                     " of replay_server.message_budget_bytes ", budget.size_bytes(), " are taken"));
  }
  max_message_bytes_ = bytes;
  taken_bytes_ = bytes + kTransportBytes;
  return absl::OkStatus();
}

absl::Status AppendCall::HandleRows() {
  if (request_.has_open()) return absl::InvalidArgumentError("Append was opened twice");
  const auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<std::vector<proto::StreamAck>> acks =
      table_->Append(request_.runs(), shard_->snapshots().newest_version(), preload_);
  if (!acks.ok()) return acks.status();
  if (shard_->options().observe_append) {
    shard_->options().observe_append(absl::FromChrono(std::chrono::steady_clock::now() - begin));
  }
  for (const RowRunView& run : request_.runs()) rows_received_ += *row_sizes_.Count(run.rows);
  drained_ = request_.drained();
  Ack(*acks, request_.size_bytes());
  return absl::OkStatus();
}

void AppendCall::Ack(absl::Span<const proto::StreamAck> acks, uint64_t bytes) {
  Acks* to = &acks_;
  if (DiskSync* disk = table_->disk_sync(); disk != nullptr) {
    const uint64_t last = unsynced_.empty() ? 0 : unsynced_.back().sync;
    const uint64_t sync = disk->Request(last, synced_);
    if (sync != last) unsynced_.push_back({.sync = sync});
    unsynced_.back().bytes += bytes;
    unsynced_bytes_ += bytes;
    to = &unsynced_.back().acks;
  }
  for (const proto::StreamAck& ack : acks) (*to)[ack.stream()] = ack.held_rows();
}

void AppendCall::Synced() {
  absl::MutexLock lock(&mu_);
  const uint64_t ended = table_->disk_sync()->ended();
  for (; !unsynced_.empty() && unsynced_.front().sync <= ended; unsynced_.pop_front()) {
    for (const auto& [stream, held_rows] : unsynced_.front().acks) acks_[stream] = held_rows;
    unsynced_bytes_ -= unsynced_.front().bytes;
  }
  ReadNext();
  WriteNext();
}

void AppendCall::ReadNext() {
  if (!read_due_ || waiting_ || ending_.has_value() || acks_.size() > kMaxAcksWaiting) return;
  const auto window_bytes = static_cast<uint64_t>(shard_->options().append_window_bytes);
  if (unsynced_bytes_ >= window_bytes) return;
  const Admission admission =
      preload_ || draining_ ? Admission::kAdmitted : table_->AdmitWriterOrWait(waiter_);
  held_back_ = draining_ || admission == Admission::kHeldBack;
  waiting_ = admission != Admission::kAdmitted;
  if (admission == Admission::kNotItsTurn) {
    timer_ = shard_->scheduler().After(absl::FromChrono(Turns::kQuiet), waiter_->wake);
  }
  if (waiting_) return;
  read_due_ = false;
  StartRead(&request_bytes_);
}

void AppendCall::Wake() {
  absl::MutexLock lock(&mu_);
  StopWaiting();
  ReadNext();
  WriteNext();
}

bool AppendCall::RequestUnrolls(const Table* table, uint64_t policy_version) {
  absl::MutexLock lock(&mu_);
  if (table_ != table || ending_.has_value()) return false;
  unrolls_wanted_of_ = policy_version;
  WriteNext();
  return true;
}

void AppendCall::NoteDraining() {
  absl::MutexLock lock(&mu_);
  if (table_ == nullptr || ending_.has_value()) return;
  draining_ = held_back_ = shard_->draining();
  drained_ = false;
  StopWaiting();
  table_->Forget(waiter_);
  ReadNext();
  WriteNext();
}

void AppendCall::DescribeItself(proto::CallDescription* description) {
  description->set_method("Append");
  description->set_streams(streams_);
  description->set_held_back(held_back_);
  description->set_drained(drained_ && unsynced_.empty());
  if (table_ != nullptr) description->set_rows(rows_received_);
}

void AppendCall::Write() {
  reply_.Clear();
  if (!opened_) reply_.set_window_bytes(shard_->options().append_window_bytes);
  opened_ = true;
  reply_.set_held_back(held_back_);
  told_to_wait_ = held_back_;
  reply_.set_draining(draining_);
  told_draining_ = draining_;
  reply_.set_unrolls_wanted_of(std::exchange(unrolls_wanted_of_, 0));
  for (const auto& [stream, held_rows] : acks_) {
    proto::StreamAck* ack = reply_.add_acks();
    ack->set_stream(stream);
    ack->set_held_rows(held_rows);
  }
  acks_.clear();
  reply_bytes_ = EncodeMessage(reply_);
  writing_ = true;
  StartWrite(&reply_bytes_);
}

void AppendCall::WriteNext() {
  if (writing_ || finished_) return;
  const bool must_sync_first = !opened_ && !unsynced_.empty();
  const bool is_news =
      table_ != nullptr && !must_sync_first &&
      (!opened_ ||
       (!ending_.has_value() &&
        (held_back_ != told_to_wait_ || draining_ != told_draining_ || unrolls_wanted_of_ != 0)));
  if (!acks_.empty() || is_news) {
    Write();
  } else if (ending_.has_value() && unsynced_.empty()) {
    FinishOnce();
  }
}

void AppendCall::DropUnsent() {
  acks_.clear();
  unsynced_.clear();
  unsynced_bytes_ = 0;
  opened_ = true;
}

void AppendCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok) {
    DropUnsent();
    return End(absl::CancelledError("the writer is gone"));
  }
  ReadNext();
  WriteNext();
}

void AppendCall::StopWaiting() {
  if (timer_ != 0) {
    shard_->scheduler().Cancel(timer_);
    table_->Forget(waiter_);  // it may be the timer that has come
  }
  timer_ = 0;
  waiting_ = false;
}

void AppendCall::Leave() {
  StopWaiting();
  shard_->budget().Return(taken_bytes_);
  if (table_ == nullptr) return;
  table_->Forget(waiter_);
  table_->CountAppendCall(-1);
}

}  // namespace troupe
