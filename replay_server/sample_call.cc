#include "replay_server/sample_call.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "replay_server/wire.h"

namespace troupe {
namespace {

constexpr uint32_t kMaxTimeoutMs = 60000;
constexpr uint32_t kMaxWindows = 1 << 24;
constexpr uint32_t kMaxShards = 65536;
constexpr uint64_t kMaxSampled = uint64_t{1} << 56;
constexpr uint64_t kMaxReplyBytes = uint64_t{1} << 30;
// A row id and a probability.
constexpr uint64_t kBytesBesideWindow = 12;
// Requests that wait on one call; more are left unread.
constexpr size_t kMaxQueued = 1024;

}  // namespace

SampleCall* SampleCall::Start(Shard* shard, Peer peer) {
  std::shared_ptr<SampleCall> call(new SampleCall(shard, std::move(peer)));
  call->Begin();
  return call.get();
}

void SampleCall::OnReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  if (ending_.has_value()) return;
  if (!ok) {
    reads_done_ = true;
    return FinishIfIdle();
  }
  if (absl::Status status = HandleMessage(); !status.ok()) return End(status);
  read_due_ = true;
  AnswerNext();
  ReadNext();
}

absl::Status SampleCall::HandleMessage() {
  if (absl::Status status = DecodeMessage(&request_bytes_, &request_); !status.ok()) return status;
  return table_ == nullptr ? HandleOpen() : HandleRequest();
}

absl::Status SampleCall::HandleOpen() {
  if (!request_.has_open()) {
    return absl::InvalidArgumentError("the first request of Sample holds `open`");
  }
  absl::StatusOr<Table*> table = shard_->FindTable(request_.open().table());
  if (!table.ok()) return table.status();
  if (absl::Status status = shard_->ClaimRun(request_.open().run()); !status.ok()) return status;
  table_ = *table;
  table_->CountSampleCall(1);
  return absl::OkStatus();
}

absl::Status SampleCall::HandleRequest() {
  if (request_.has_open()) return absl::InvalidArgumentError("Sample was opened twice");
  if (request_.timeout_ms() > kMaxTimeoutMs) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout_ms is ", request_.timeout_ms(), ", at most ", kMaxTimeoutMs));
  }
  if (request_.num_windows() > kMaxWindows) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_windows is ", request_.num_windows(), ", at most ", kMaxWindows));
  }
  if (request_.sampled_at_least() > kMaxSampled) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampled_at_least is ", request_.sampled_at_least(), ", at most 2^56"));
  }
  if (request_.num_shards() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_shards is ", request_.num_shards(), ", at most ", kMaxShards));
  }
  if (request_.has_priorities()) {
    absl::StatusOr<PriorityOutcome> outcome = table_->UpdatePriorities(request_.priorities());
    if (!outcome.ok()) return outcome.status();
  }
  table_->NoteOthers(request_.others_inserted(), request_.others_preloaded(),
                     request_.others_sampled(), request_.num_shards());
  if (request_.sampled_at_least() > 0) table_->NoteSampled(request_.sampled_at_least());
  queue_.push_back({{request_.num_windows(), request_.inserted_above(), request_.lacks_windows()},
                    Clock::now() + std::chrono::milliseconds(request_.timeout_ms())});
  return absl::OkStatus();
}

void SampleCall::ReadNext() {
  if (!read_due_ || ending_.has_value() || queue_.size() >= kMaxQueued) return;
  read_due_ = false;
  StartRead(&request_bytes_);
}

absl::StatusOr<uint64_t> SampleCall::ReplyBytes(const SampleQuery& query) const {
  const uint64_t window_bytes = table_->window_bytes() + kBytesBesideWindow;
  const uint64_t most = std::min(kMaxReplyBytes, shard_->budget().size_bytes() / 4);
  if (query.num_windows <= most / window_bytes) return query.num_windows * window_bytes;
  return absl::ResourceExhaustedError(
      absl::StrCat(query.num_windows, " windows of ", table_->window_bytes(),
                   " bytes do not fit into a reply of ", most,
                   " bytes, a quarter of replay_server.message_budget_bytes or 1 GiB"));
}

void SampleCall::ReturnBudget() {
  if (taken_bytes_ > 0) shard_->budget().Return(taken_bytes_);
  taken_bytes_ = 0;
}

void SampleCall::AnswerNext() {
  if (writing_ || waiting_ || queue_.empty() || ending_.has_value()) return;
  const Request& head = queue_.front();
  const absl::StatusOr<uint64_t> reply_bytes = ReplyBytes(head.query);
  if (!reply_bytes.ok()) return End(reply_bytes.status());
  const bool has_memory = shard_->budget().TakeOrWait(*reply_bytes, waiter_);
  if (has_memory) {
    taken_bytes_ = *reply_bytes;
    const Clock::time_point begin = Clock::now();
    if (table_->SampleOrWait(head.query, waiter_, &batch_)) return Answer(head.query, begin);
    ReturnBudget();
  }
  const Clock::duration left = head.deadline - Clock::now();
  if (left <= Clock::duration::zero()) {
    table_->Forget(waiter_);
    table_->FillCounts(&batch_);
    return Reply();
  }
  waiting_ = true;
  if (timer_ != 0) return;
  timer_ = shard_->scheduler().After(absl::FromChrono(left), waiter_->wake);
}

void SampleCall::Answer(const SampleQuery& query, Clock::time_point begin) {
  const bool has_windows = query.num_windows > 0;
  Reply();
  if (has_windows && shard_->options().observe_sample) {
    shard_->options().observe_sample(absl::FromChrono(Clock::now() - begin));
  }
}

void SampleCall::Reply() {
  StopWaiting();
  queue_.pop_front();
  windows_sent_ += batch_.row_ids.size();
  reply_bytes_ = EncodeSampleReply(&batch_);
  writing_ = true;
  StartWrite(&reply_bytes_);
}

void SampleCall::StopWaiting() {
  shard_->budget().Forget(waiter_);
  waiting_ = false;
  if (timer_ != 0) shard_->scheduler().Cancel(timer_);
  timer_ = 0;
}

void SampleCall::Wake() {
  absl::MutexLock lock(&mu_);
  if (!waiting_) return;
  table_->Forget(waiter_);  // it may be the timer that has come
  waiting_ = false;
  AnswerNext();
}

void SampleCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  ReturnBudget();
  if (!ok) return End(absl::CancelledError("the sampler is gone"));
  AnswerNext();
  ReadNext();
  FinishIfIdle();
}

void SampleCall::FinishIfIdle() {
  if (ending_.has_value()) {
    if (waiting_) table_->Forget(waiter_);
    StopWaiting();
  }
  const bool all_answered = reads_done_ && queue_.empty();
  if (!writing_ && (ending_.has_value() || all_answered)) FinishOnce();
}

void SampleCall::Leave() {
  if (table_ != nullptr) {
    table_->Forget(waiter_);
    table_->CountSampleCall(-1);
  }
  StopWaiting();
  ReturnBudget();
}

}  // namespace troupe
