#include "replay_server/sample_call.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr uint32_t kMaxTimeoutMs = 60000;
constexpr uint32_t kMaxWindows = 1 << 24;
constexpr uint64_t kMaxReplyBytes = uint64_t{1} << 30;
// Requests that wait on one call; more are left unread.
constexpr size_t kMaxQueued = 1024;

}  // namespace

SampleCall* SampleCall::Start(Shard* shard) {
  std::shared_ptr<SampleCall> call(new SampleCall(shard));
  call->Begin();
  return call.get();
}

void SampleCall::Begin() {
  absl::MutexLock lock(&mu_);
  self_ = shared_from_this();
  waiter_ = std::make_shared<Waiter>();
  waiter_->wake = [weak = weak_from_this()] {
    if (std::shared_ptr<SampleCall> call = weak.lock()) call->Wake();
  };
  if (absl::Status status = shard_->CheckServing(); !status.ok()) return End(status);
  if (absl::Status status = shard_->calls().Add(self_); !status.ok()) return End(status);
  StartRead(&request_);
}

void SampleCall::OnReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  if (ending_.has_value()) return;
  if (!ok) {
    reads_done_ = true;
    return FinishIfIdle();
  }
  if (absl::Status status = table_ == nullptr ? HandleOpen() : HandleRequest(); !status.ok()) {
    return End(status);
  }
  read_due_ = true;
  AnswerNext();
  ReadNext();
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
  table_->NoteOthers(request_.others_inserted(), request_.others_sampled());
  queue_.push_back({{request_.num_windows(), request_.inserted_above()},
                    Clock::now() + std::chrono::milliseconds(request_.timeout_ms())});
  return absl::OkStatus();
}

void SampleCall::ReadNext() {
  if (!read_due_ || ending_.has_value() || queue_.size() >= kMaxQueued) return;
  read_due_ = false;
  StartRead(&request_);
}

absl::Status SampleCall::CheckReplySize(const SampleQuery& query) const {
  const uint64_t window_bytes = table_->window_bytes();
  if (window_bytes == 0 || query.num_windows <= kMaxReplyBytes / window_bytes) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(query.num_windows, " windows of ", window_bytes,
                                                   " bytes do not fit into a reply of ",
                                                   kMaxReplyBytes, " bytes"));
}

void SampleCall::AnswerNext() {
  if (writing_ || waiting_ || queue_.empty() || ending_.has_value()) return;
  const Request& head = queue_.front();
  if (absl::Status status = CheckReplySize(head.query); !status.ok()) return End(status);
  SampleBatch batch;
  if (table_->SampleOrWait(head.query, waiter_, &batch)) return Reply(std::move(batch));
  const Clock::duration left = head.deadline - Clock::now();
  if (left <= Clock::duration::zero()) {
    table_->Forget(waiter_);
    return Reply(table_->Counts());
  }
  waiting_ = true;
  if (timer_ != 0) return;
  timer_ = shard_->scheduler().After(absl::FromChrono(left), waiter_->wake);
}

void SampleCall::Reply(SampleBatch batch) {
  StopWaiting();
  queue_.pop_front();
  reply_.Clear();
  *reply_.mutable_windows() = std::move(batch.windows);
  reply_.mutable_row_ids()->Add(batch.row_ids.begin(), batch.row_ids.end());
  reply_.mutable_probabilities()->Add(batch.probabilities.begin(), batch.probabilities.end());
  reply_.set_mass(batch.mass);
  reply_.mutable_counts()->set_env_steps(batch.counts.env_steps);
  reply_.mutable_counts()->set_inserted(batch.counts.inserted);
  reply_.mutable_counts()->set_sampled(batch.counts.sampled);
  writing_ = true;
  StartWrite(&reply_);
}

void SampleCall::StopWaiting() {
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
  if (!ok) return End(absl::CancelledError("the sampler is gone"));
  AnswerNext();
  ReadNext();
  FinishIfIdle();
}

void SampleCall::End(const absl::Status& status) {
  if (!ending_.has_value()) ending_ = status;
  if (waiting_) table_->Forget(waiter_);
  StopWaiting();
  FinishIfIdle();
}

void SampleCall::FinishIfIdle() {
  if (writing_ || finished_) return;
  const bool all_answered = reads_done_ && queue_.empty();
  if (!ending_.has_value() && !all_answered) return;
  finished_ = true;
  Finish(ToGrpc(ending_.value_or(absl::OkStatus())));
}

void SampleCall::OnCancel() {
  absl::MutexLock lock(&mu_);
  End(absl::CancelledError("the sampler is gone"));
}

void SampleCall::Drain() {
  absl::MutexLock lock(&mu_);
  End(DrainingError());
}

void SampleCall::OnDone() {
  shard_->calls().Remove(this);
  std::shared_ptr<SampleCall> self;  // dies after the lock
  absl::MutexLock lock(&mu_);
  if (table_ != nullptr) {
    table_->Forget(waiter_);
    table_->CountSampleCall(-1);
  }
  StopWaiting();
  self = std::move(self_);
}

}  // namespace troupe
