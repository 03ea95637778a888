#include "replay_server/subscribe_call.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

}  // namespace

SubscribeCall* SubscribeCall::Start(Shard* shard, Peer peer,
                                    const proto::SubscribeRequest& request) {
  std::shared_ptr<SubscribeCall> call(
      new SubscribeCall(shard, std::move(peer), request.newer_than()));
  call->Begin(request);
  return call.get();
}

void SubscribeCall::Begin(const proto::SubscribeRequest& request) {
  absl::MutexLock lock(&mu_);
  self_ = shared_from_this();
  if (absl::Status status = Check(request); !status.ok()) return End(status);
  // Posted, so that a publication never waits for a subscriber's lock.
  listener_ = shard_->snapshots().AddListener([shard = shard_, weak = weak_from_this()] {
    shard->scheduler().Post([weak] {
      if (std::shared_ptr<SubscribeCall> call = weak.lock()) call->Wake();
    });
  });
  WriteNext();
}

absl::Status SubscribeCall::Check(const proto::SubscribeRequest& request) {
  if (absl::Status status = shard_->CheckServing(); !status.ok()) return status;
  if (absl::Status status = shard_->ClaimRun(request.run()); !status.ok()) return status;
  return shard_->calls().Add(self_);
}

void SubscribeCall::DescribeWork(proto::CallDescription* description) {
  absl::MutexLock lock(&mu_);
  description->set_method("Subscribe");
  description->set_snapshot_version(sent_version_);
}

void SubscribeCall::Wake() {
  absl::MutexLock lock(&mu_);
  WriteNext();
}

void SubscribeCall::WriteNext() {
  if (writing_ || finished_) return;
  if (ending_.has_value()) {
    finished_ = true;
    shard_->NoteEnd(*ending_);
    Finish(ToGrpc(*ending_));
    return;
  }
  chunk_.Clear();
  if (current_ == nullptr) {
    SnapshotPtr newest = shard_->snapshots().newest();
    if (newest == nullptr || newest->version <= sent_version_) return;
    current_ = std::move(newest);
    offset_ = 0;
    proto::SnapshotHeader* header = chunk_.mutable_header();
    header->set_run(current_->run);
    header->set_version(current_->version);
    header->set_size_bytes(current_->image.size());
    header->set_crc32c(current_->crc32c);
    header->set_created_unix_ns(current_->created_unix_ns);
  }
  const size_t size = std::min(kChunkBytes, current_->image.size() - offset_);
  chunk_.mutable_data()->assign(current_->image, offset_, size);
  offset_ += size;
  if (offset_ == current_->image.size()) {
    sent_version_ = current_->version;
    current_ = nullptr;
  }
  writing_ = true;
  StartWrite(&chunk_);
}

void SubscribeCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (!ok) return End(absl::CancelledError("the subscriber is gone"));
  WriteNext();
}

void SubscribeCall::End(const absl::Status& status) {
  if (!ending_.has_value()) ending_ = status;
  WriteNext();
}

void SubscribeCall::OnCancel() {
  absl::MutexLock lock(&mu_);
  End(absl::CancelledError("the subscriber is gone"));
}

void SubscribeCall::Drain() {
  absl::MutexLock lock(&mu_);
  End(DrainingError());
}

void SubscribeCall::OnDone() {
  shard_->calls().Remove(this);
  std::shared_ptr<SubscribeCall> self;  // dies after the lock
  absl::MutexLock lock(&mu_);
  shard_->snapshots().RemoveListener(listener_);
  self = std::move(self_);
}

}  // namespace troupe
