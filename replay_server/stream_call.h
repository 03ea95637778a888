#ifndef TROUPE_REPLAY_SERVER_STREAM_CALL_H_
#define TROUPE_REPLAY_SERVER_STREAM_CALL_H_

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "proto/replay.pb.h"
#include "replay_server/calls.h"
#include "replay_server/shard.h"
#include "replay_server/table.h"

namespace troupe {

// What all calls on a table have in common: how they begin, wait and end.  `Reactor` is gRPC's.
//
// Thread-safe; owns itself until gRPC is done with it.
template <typename Reactor>
class StreamCall : public Reactor,
                   public Call,
                   public std::enable_shared_from_this<StreamCall<Reactor>> {
 public:
  void Drain() final ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    End(DrainingError());
  }

  void OnCancel() final ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    DropUnsent();
    End(absl::CancelledError("the peer is gone"));
  }

  void OnDone() final ABSL_LOCKS_EXCLUDED(mu_) {
    shard_->calls().Remove(this);
    std::shared_ptr<StreamCall> self;  // dies after the lock
    absl::MutexLock lock(&mu_);
    Leave();
    self = std::move(self_);
  }

 protected:
  StreamCall(Shard* shard, Peer peer) : Call(std::move(peer)), shard_(shard) {}

  // What came of the call, beside its table.
  virtual void DescribeItself(proto::CallDescription* description)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // Makes the call known to the shard and starts it, unless the shard does not serve.
  void Begin() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    self_ = this->shared_from_this();
    waiter_ = std::make_shared<Waiter>();
    waiter_->wake = [weak = this->weak_from_this()] {
      if (std::shared_ptr<StreamCall> call = weak.lock()) call->Wake();
    };
    if (absl::Status status = shard_->CheckServing(); !status.ok()) return End(status);
    if (absl::Status status = shard_->calls().Add(self_); !status.ok()) return End(status);
    Enter();
  }

  // The call ends with `status` once what is being sent is sent; the first status counts.
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!ending_.has_value()) ending_ = status;
    FinishIfIdle();
  }

  // REQUIRES: no operation of gRPC is under way but reads.
  void FinishOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    const absl::Status status = ending_.value_or(absl::OkStatus());
    shard_->NoteEnd(status);
    this->Finish(ToGrpc(status));
  }

  // The first operation.
  virtual void Enter() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // What the call waited for may be there.
  virtual void Wake() ABSL_LOCKS_EXCLUDED(mu_) = 0;
  // Calls FinishOnce() if the call is to end and nothing is being sent.
  virtual void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // The peer will read nothing any more.
  virtual void DropUnsent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {}
  // gRPC is done: gives back what the call holds.
  virtual void Leave() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;

  Shard* const shard_;
  absl::Mutex mu_;
  std::shared_ptr<StreamCall> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  WaiterPtr waiter_ ABSL_GUARDED_BY(mu_);
  Table* table_ ABSL_GUARDED_BY(mu_) = nullptr;  // null until opened
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;

 private:
  void DescribeWork(proto::CallDescription* description) final ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (table_ != nullptr) description->set_table(table_->options().name);
    DescribeItself(description);
  }
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_STREAM_CALL_H_
