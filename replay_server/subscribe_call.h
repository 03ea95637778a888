#ifndef TROUPE_REPLAY_SERVER_SUBSCRIBE_CALL_H_
#define TROUPE_REPLAY_SERVER_SUBSCRIBE_CALL_H_

#include <cstdint>
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

// One Subscribe call.  It holds the snapshot that it is sending and nothing else: whatever is
// newest when that is through comes next, and what came between is skipped.
//
// Thread-safe; owns itself until gRPC is done with it.
class SubscribeCall final : public grpc::ServerWriteReactor<proto::SnapshotChunk>,
                            public Call,
                            public std::enable_shared_from_this<SubscribeCall> {
 public:
  static SubscribeCall* Start(Shard* shard, Peer peer, const proto::SubscribeRequest& request);

  void Drain() override ABSL_LOCKS_EXCLUDED(mu_);

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  SubscribeCall(Shard* shard, Peer peer, uint64_t newer_than)
      : Call(std::move(peer)), shard_(shard), sent_version_(newer_than) {}

  void DescribeWork(proto::CallDescription* description) override ABSL_LOCKS_EXCLUDED(mu_);
  void Begin(const proto::SubscribeRequest& request) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Check(const proto::SubscribeRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Wake() ABSL_LOCKS_EXCLUDED(mu_);
  // Writes the next chunk if there is one and none is under way.
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The call ends with `status` when the chunk under way is written; the first status counts.
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Shard* const shard_;
  absl::Mutex mu_;
  std::shared_ptr<SubscribeCall> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  uint64_t listener_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sent_version_ ABSL_GUARDED_BY(mu_);
  SnapshotPtr current_ ABSL_GUARDED_BY(mu_);  // null: all is sent
  size_t offset_ ABSL_GUARDED_BY(mu_) = 0;    // bytes of it that are sent
  proto::SnapshotChunk chunk_;                // gRPC's while a write is under way
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SUBSCRIBE_CALL_H_
