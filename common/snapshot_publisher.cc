#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/channel.h"
#include "common/snapshot_client.h"
#include "proto/weights.grpc.pb.h"

namespace troupe {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
// How often an idle thread looks whether its shard's connection broke.
constexpr absl::Duration kWatchInterval = absl::Seconds(1);

proto::SnapshotHeader MakeHeader(const Snapshot& snapshot) {
  proto::SnapshotHeader header;
  header.set_run(snapshot.run);
  header.set_version(snapshot.version);
  header.set_size_bytes(snapshot.image.size());
  header.set_crc32c(snapshot.crc32c);
  header.set_created_unix_ns(snapshot.created_unix_ns);
  return header;
}

// Writes all chunks; the status of the call tells whether that helped.
void WriteChunks(const Snapshot& snapshot, grpc::ClientWriter<proto::SnapshotChunk>& writer) {
  proto::SnapshotChunk chunk;
  *chunk.mutable_header() = MakeHeader(snapshot);
  for (size_t offset = 0; offset < snapshot.image.size(); offset += kChunkBytes) {
    chunk.set_data(snapshot.image.substr(offset, kChunkBytes));
    if (!writer.Write(chunk)) return;
    chunk.clear_header();
  }
  writer.WritesDone();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SnapshotPublisher>> SnapshotPublisher::Create(
    SnapshotClientOptions options) {
  auto directory = ShardDirectory::OrFixed(options.directory, options.shards, options.credentials);
  if (!directory.ok()) return directory.status();
  options.directory = *std::move(directory);
  return std::unique_ptr<SnapshotPublisher>(new SnapshotPublisher(std::move(options)));
}

SnapshotPublisher::SnapshotPublisher(SnapshotClientOptions options) : options_(std::move(options)) {
  listener_ = options_.directory->AddListener([this] { OnShardsChanged(); });
  OnShardsChanged();
}

SnapshotPublisher::~SnapshotPublisher() {
  options_.directory->RemoveListener(listener_);
  Stop();
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mu_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void SnapshotPublisher::OnShardsChanged() {
  absl::MutexLock lock(&mu_);
  for (const Shard& shard : shards_) {
    if (shard.call != nullptr && shard.link->IsStale()) shard.call->TryCancel();
  }
  while (shards_.size() < options_.directory->size()) {
    const size_t index = shards_.size();
    shards_.emplace_back();
    threads_.emplace_back([this, index] { Run(index); });
  }
}

absl::Status SnapshotPublisher::Publish(SnapshotPtr snapshot) {
  absl::MutexLock lock(&mu_);
  if (!permanent_.ok()) return permanent_;
  if (snapshot->image.empty() || snapshot->version == 0) {
    return absl::InvalidArgumentError(absl::StrCat("snapshot of version ", snapshot->version,
                                                   " with ", snapshot->image.size(), " bytes"));
  }
  if (newest_ != nullptr && snapshot->version <= newest_->version) {
    return absl::InvalidArgumentError(
        absl::StrCat("version ", snapshot->version, " after version ", newest_->version));
  }
  newest_ = std::move(snapshot);
  for (Shard& shard : shards_) shard.tried = false;
  return absl::OkStatus();
}

bool SnapshotPublisher::Settled(uint64_t version) const {
  bool any = false;
  for (const Shard& shard : shards_) {
    const bool holds = shard.version >= version;
    any |= holds;
    if (!holds && !shard.tried) return false;
  }
  return any;
}

absl::Status SnapshotPublisher::WaitPublished(uint64_t version, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto ready = [this, version] {
    mu_.AssertReaderHeld();
    return stopped_ || !permanent_.ok() || Settled(version);
  };
  mu_.AwaitWithDeadline(absl::Condition(&ready), deadline);
  if (!permanent_.ok()) return permanent_;
  if (Settled(version)) return absl::OkStatus();
  if (stopped_) return absl::CancelledError("snapshot publisher is stopped");
  std::string missing;
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (shards_[i].version >= version) continue;
    absl::StrAppend(&missing, "; ", options_.directory->Name(i), " holds ", shards_[i].version, " ",
                    shards_[i].last.message());
  }
  return absl::DeadlineExceededError(
      absl::StrCat("version ", version, " is not published", missing));
}

absl::Status SnapshotPublisher::status() const {
  absl::MutexLock lock(&mu_);
  return permanent_;
}

std::vector<uint64_t> SnapshotPublisher::published() const {
  absl::MutexLock lock(&mu_);
  std::vector<uint64_t> versions;
  for (const Shard& shard : shards_) versions.push_back(shard.version);
  return versions;
}

void SnapshotPublisher::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  for (const Shard& shard : shards_) {
    if (shard.call != nullptr) shard.call->TryCancel();
  }
}

void SnapshotPublisher::Run(size_t index) {
  ShardLink link(options_.directory, index);
  Backoff backoff(options_.reconnect_min, options_.reconnect_max, std::random_device{}());
  while (const SnapshotPtr snapshot = AwaitWork(index, link)) {
    link.Renew();
    const absl::Status status = Send(index, link, *snapshot);
    link.NoteEnd(status);
    Record(index, snapshot->version, status);
    if (status.ok()) {
      backoff.Reset();
      continue;
    }
    const absl::Time retry = absl::Now() + backoff.Next();
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithDeadline(absl::Condition(&stopped_), retry);
  }
}

// The newest snapshot once the shard may lack it; nullptr to end.
SnapshotPtr SnapshotPublisher::AwaitWork(size_t index, const ShardLink& link) {
  absl::MutexLock lock(&mu_);
  const auto work = [this, index] {
    mu_.AssertReaderHeld();
    return stopped_ || !permanent_.ok() ||
           (newest_ != nullptr && shards_[index].version < newest_->version);
  };
  while (!mu_.AwaitWithTimeout(absl::Condition(&work), kWatchInterval)) {
    // A shard that was away may have come back without its data.
    if (newest_ != nullptr &&
        link.channel()->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_READY) {
      shards_[index].version = 0;
    }
  }
  return stopped_ || !permanent_.ok() ? nullptr : newest_;
}

absl::Status SnapshotPublisher::Send(size_t index, const ShardLink& link,
                                     const Snapshot& snapshot) {
  grpc::ClientContext context;
  link.Address(&context);
  {
    absl::MutexLock lock(&mu_);
    if (stopped_) return absl::CancelledError("stopped");
    shards_[index].call = &context;
    shards_[index].link = &link;
  }
  proto::PublishReply reply;
  const auto stub = proto::Weights::NewStub(link.channel());
  const auto writer = stub->Publish(&context, &reply);
  WriteChunks(snapshot, *writer);
  const grpc::Status end = writer->Finish();
  absl::MutexLock lock(&mu_);
  shards_[index].call = nullptr;
  return FromGrpc(end, absl::StrCat("publishing version ", snapshot.version, " to"), link.Name());
}

void SnapshotPublisher::Record(size_t index, uint64_t version, const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  Shard& shard = shards_[index];
  shard.last = status;
  if (status.ok()) {
    shard.version = version;
  } else if (newest_->version == version) {
    shard.tried = true;
  }
  if (IsPermanent(status) && permanent_.ok()) permanent_ = status;
}

}  // namespace troupe
