#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/channel.h"
#include "common/snapshot_assembler.h"
#include "common/snapshot_client.h"
#include "proto/weights.grpc.pb.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<SnapshotSubscriber>> SnapshotSubscriber::Create(
    SnapshotClientOptions options, int preferred_shard) {
  auto directory = ShardDirectory::OrFixed(options.directory, options.shards, options.credentials);
  if (!directory.ok()) return directory.status();
  options.directory = *std::move(directory);
  return std::unique_ptr<SnapshotSubscriber>(
      new SnapshotSubscriber(std::move(options), preferred_shard));
}

SnapshotSubscriber::SnapshotSubscriber(SnapshotClientOptions options, int preferred_shard)
    : options_(std::move(options)), preferred_shard_(static_cast<uint64_t>(preferred_shard)) {
  listener_ = options_.directory->AddListener([this] { OnShardsChanged(); });
  thread_ = std::thread([this] { Run(); });
}

SnapshotSubscriber::~SnapshotSubscriber() {
  options_.directory->RemoveListener(listener_);
  Stop();
  thread_.join();
}

SnapshotPtr SnapshotSubscriber::Newest() const {
  absl::MutexLock lock(&mu_);
  return newest_;
}

absl::StatusOr<SnapshotPtr> SnapshotSubscriber::WaitNewer(uint64_t version, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto newer = [this, version] {
    mu_.AssertReaderHeld();
    return newest_ != nullptr && newest_->version > version;
  };
  const auto ready = [&] {
    mu_.AssertReaderHeld();
    return newer() || stopped_ || !permanent_.ok();
  };
  const bool in_time = mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  if (newer()) return newest_;
  if (!permanent_.ok()) return permanent_;
  if (stopped_) return absl::CancelledError("snapshot subscriber is stopped");
  return in_time ? absl::InternalError("woken without a reason")
                 : absl::DeadlineExceededError(
                       absl::StrCat("no snapshot newer than version ", version, " from ",
                                    options_.directory->Names(),
                                    last_break_.ok() ? "" : "; last: ", last_break_.message()));
}

absl::Status SnapshotSubscriber::status() const {
  absl::MutexLock lock(&mu_);
  return permanent_;
}

SnapshotSubscriber::Stats SnapshotSubscriber::stats() const {
  absl::MutexLock lock(&mu_);
  return stats_;
}

void SnapshotSubscriber::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  if (call_ != nullptr) call_->TryCancel();
}

void SnapshotSubscriber::Run() {
  Backoff backoff(options_.reconnect_min, options_.reconnect_max, std::random_device{}());
  for (size_t attempt = 0;; ++attempt) {
    const ShardDirectory& directory = *options_.directory;
    const size_t shard = (directory.Choose(preferred_shard_) + attempt) % directory.size();
    const int64_t received_before = stats().received;
    const absl::Status status = SubscribeTo(shard);
    absl::Duration pause = absl::ZeroDuration();
    {
      absl::MutexLock lock(&mu_);
      if (stopped_) return;
      ++stats_.reconnects;
      last_break_ = status;
      if (IsPermanent(status)) {
        permanent_ = status;
        return;
      }
      // Back to the preferred shard first, once some shard was of use.
      if (stats_.received > received_before) {
        backoff.Reset();
        attempt = std::numeric_limits<size_t>::max();  // and then 0
      }
    }
    pause = backoff.Next();
    if (!PauseUntil(absl::Now() + pause)) return;
  }
}

void SnapshotSubscriber::OnShardsChanged() {
  absl::MutexLock lock(&mu_);
  if (call_ != nullptr && link_->IsStale()) call_->TryCancel();
}

absl::Status SnapshotSubscriber::SubscribeTo(size_t shard) {
  const ShardLink link(options_.directory, shard);
  grpc::ClientContext context;
  link.Address(&context);
  proto::SubscribeRequest request;
  request.set_run(options_.run);
  {
    absl::MutexLock lock(&mu_);
    if (stopped_) return absl::CancelledError("stopped");
    if (newest_ != nullptr) request.set_newer_than(newest_->version);
    call_ = &context;
    link_ = &link;
  }
  const auto stub = proto::Weights::NewStub(link.channel());
  const auto reader = stub->Subscribe(&context, request);
  SnapshotAssembler assembler(options_.run, options_.max_snapshot_bytes);
  proto::SnapshotChunk chunk;
  absl::Status fault;
  while (fault.ok() && reader->Read(&chunk)) {
    absl::StatusOr<std::shared_ptr<Snapshot>> snapshot = assembler.Add(chunk);
    fault = snapshot.status();
    if (fault.ok() && *snapshot != nullptr) fault = Accept(*std::move(snapshot));
  }
  if (!fault.ok()) context.TryCancel();
  const grpc::Status end = reader->Finish();
  absl::MutexLock lock(&mu_);
  call_ = nullptr;
  const absl::Status status = FromGrpc(end, "subscribing to", link.Name());
  link.NoteEnd(status);
  if (fault.ok()) return status;
  ++stats_.rejected;
  return absl::Status(fault.code(),
                      absl::StrCat("snapshot from ", link.Name(), ": ", fault.message()));
}

absl::Status SnapshotSubscriber::Accept(std::shared_ptr<Snapshot> snapshot) {
  absl::MutexLock lock(&mu_);
  if (newest_ != nullptr && snapshot->version <= newest_->version) {
    return absl::DataLossError(
        absl::StrCat("version ", snapshot->version, " after version ", newest_->version));
  }
  newest_ = std::move(snapshot);
  ++stats_.received;
  return absl::OkStatus();
}

bool SnapshotSubscriber::PauseUntil(absl::Time time) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithDeadline(absl::Condition(&stopped_), time);
}

}  // namespace troupe
