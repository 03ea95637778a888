#ifndef TROUPE_REPLAY_SERVER_FOLLOW_CALL_H_
#define TROUPE_REPLAY_SERVER_FOLLOW_CALL_H_

#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "replay_server/follower.h"
#include "replay_server/shard.h"
#include "replay_server/stream_call.h"

namespace troupe {

// One Follow call.  One reply is under way at a time, copied while its blocks are pinned, so a
// follower that reads slowly holds up nobody: what the ring gives up meanwhile it misses.
class FollowCall final : public StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>> {
 public:
  static FollowCall* Start(Shard* shard, Peer peer, const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Clock = std::chrono::steady_clock;

  FollowCall(Shard* shard, Peer peer, const grpc::ByteBuffer& request)
      : StreamCall(shard, std::move(peer)), request_bytes_(request) {}

  void Enter() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // There are rows; more are let gather.
  void Wake() override ABSL_LOCKS_EXCLUDED(mu_);
  void FinishIfIdle() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ending_.has_value() && !writing_) FinishOnce();
  }
  void Leave() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DescribeItself(proto::CallDescription* description) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Status Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Sends what there is, or that there is nothing, if that is due.
  void SendNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendNextAfter(absl::Duration delay) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::ByteBuffer request_bytes_ ABSL_GUARDED_BY(mu_);
  grpc::ByteBuffer reply_bytes_;                   // gRPC's while a write is under way
  uint64_t taken_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of the message budget: the largest reply
  FollowerPtr follower_ ABSL_GUARDED_BY(mu_);
  FollowBatch batch_ ABSL_GUARDED_BY(mu_);  // scratch
  uint64_t rows_sent_ ABSL_GUARDED_BY(mu_) = 0;
  bool told_everything_ ABSL_GUARDED_BY(mu_) = false;  // that there is no more, since the last row
  bool telling_later_ ABSL_GUARDED_BY(mu_) = false;    // a timer will see to it
  Clock::time_point may_tell_ ABSL_GUARDED_BY(mu_) = {};  // not before this
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_FOLLOW_CALL_H_
