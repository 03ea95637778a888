#ifndef TROUPE_REPLAY_SERVER_PUBLISH_CALL_H_
#define TROUPE_REPLAY_SERVER_PUBLISH_CALL_H_

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/snapshot.h"
#include "grpcpp/support/server_callback.h"
#include "proto/weights.pb.h"
#include "replay_server/calls.h"
#include "replay_server/shard.h"

namespace troupe {

// One Publish call: gathers the chunks of a snapshot, checks them and hands it to the store.
//
// Thread-safe; owns itself until gRPC is done with it.
class PublishCall final : public grpc::ServerReadReactor<proto::SnapshotChunk>,
                          public Call,
                          public std::enable_shared_from_this<PublishCall> {
 public:
  // `reply` lives as long as the call.
  static PublishCall* Start(Shard* shard, Peer peer, proto::PublishReply* reply);

  void Drain() override ABSL_LOCKS_EXCLUDED(mu_);

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  PublishCall(Shard* shard, Peer peer, proto::PublishReply* reply)
      : Call(std::move(peer)), shard_(shard), reply_(reply) {}

  void DescribeWork(proto::CallDescription* description) override {
    description->set_method("Publish");
  }
  void Begin() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status HandleChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleHeader(const proto::SnapshotHeader& header) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All chunks are here: continues on the thread that writes snapshots.
  void HandleEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Store() ABSL_LOCKS_EXCLUDED(mu_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Shard* const shard_;
  proto::PublishReply* const reply_;
  absl::Mutex mu_;
  std::shared_ptr<PublishCall> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  proto::SnapshotChunk chunk_;                              // gRPC's while a read is under way
  std::optional<proto::SnapshotHeader> header_ ABSL_GUARDED_BY(mu_);
  Snapshot snapshot_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_PUBLISH_CALL_H_
