#include "replay_server/publish_call.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr size_t kMaxChunkBytes = 1 << 20;

}  // namespace

PublishCall* PublishCall::Start(Shard* shard, Peer peer, proto::PublishReply* reply) {
  std::shared_ptr<PublishCall> call(new PublishCall(shard, std::move(peer), reply));
  call->Begin();
  return call.get();
}

void PublishCall::Begin() {
  absl::MutexLock lock(&mu_);
  self_ = shared_from_this();
  if (absl::Status status = shard_->CheckServing(); !status.ok()) return End(status);
  if (absl::Status status = shard_->calls().Add(self_); !status.ok()) return End(status);
  StartRead(&chunk_);
}

void PublishCall::OnReadDone(bool ok) {
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  if (!ok) return HandleEnd();
  if (absl::Status status = HandleChunk(); !status.ok()) return End(status);
  StartRead(&chunk_);
}

absl::Status PublishCall::HandleHeader(const proto::SnapshotHeader& header) {
  const auto max_bytes = static_cast<uint64_t>(shard_->options().max_snapshot_bytes);
  if (header.version() == 0) return absl::InvalidArgumentError("a snapshot's version is never 0");
  if (header.size_bytes() == 0) return absl::InvalidArgumentError("snapshot of 0 bytes");
  if (header.size_bytes() > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("snapshot of ", header.size_bytes(),
                                                     " bytes; max_snapshot_bytes is ", max_bytes));
  }
  if (absl::Status status = shard_->ClaimRun(header.run()); !status.ok()) return status;
  if (absl::Status status = shard_->snapshots().CheckEpoch(header.version()); !status.ok()) {
    return status;
  }
  header_ = header;
  snapshot_.run = header.run();
  snapshot_.version = header.version();
  snapshot_.created_unix_ns = header.created_unix_ns();
  snapshot_.crc32c = header.crc32c();
  return absl::OkStatus();
}

absl::Status PublishCall::HandleChunk() {
  if (chunk_.has_header() == header_.has_value()) {
    return absl::InvalidArgumentError("the header comes in the first chunk and in no other");
  }
  if (chunk_.has_header()) {
    if (absl::Status status = HandleHeader(chunk_.header()); !status.ok()) return status;
  }
  const size_t size = snapshot_.image.size() + chunk_.data().size();
  if (chunk_.data().size() > kMaxChunkBytes || size > header_->size_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk of ", chunk_.data().size(), " bytes makes ", size, " bytes of the snapshot's ",
        header_->size_bytes(), "; a chunk has at most ", kMaxChunkBytes));
  }
  snapshot_.image.append(chunk_.data());
  return absl::OkStatus();
}

void PublishCall::HandleEnd() {
  if (!header_.has_value() || snapshot_.image.size() != header_->size_bytes()) {
    return End(absl::InvalidArgumentError(
        absl::StrCat("the snapshot ended after ", snapshot_.image.size(), " of ",
                     header_.has_value() ? header_->size_bytes() : 0, " bytes")));
  }
  shard_->snapshot_writer().Post([weak = weak_from_this()] {
    if (std::shared_ptr<PublishCall> call = weak.lock()) call->Store();
  });
}

void PublishCall::Store() {
  Snapshot snapshot;
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    snapshot = std::move(snapshot_);
  }
  const absl::StatusOr<uint64_t> version = shard_->snapshots().Publish(std::move(snapshot));
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  if (version.ok()) reply_->set_version(*version);
  End(version.status());
}

void PublishCall::End(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  shard_->NoteEnd(status);
  Finish(ToGrpc(status));
}

void PublishCall::OnCancel() {
  absl::MutexLock lock(&mu_);
  End(absl::CancelledError("the publisher is gone"));
}

void PublishCall::Drain() {
  absl::MutexLock lock(&mu_);
  End(DrainingError());
}

void PublishCall::OnDone() {
  shard_->calls().Remove(this);
  std::shared_ptr<PublishCall> self;  // dies after the lock
  absl::MutexLock lock(&mu_);
  self = std::move(self_);
}

}  // namespace troupe
