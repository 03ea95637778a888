#ifndef TROUPE_REPLAY_SERVER_APPEND_CALL_H_
#define TROUPE_REPLAY_SERVER_APPEND_CALL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "proto/replay.pb.h"
#include "replay_server/calls.h"
#include "replay_server/shard.h"
#include "replay_server/table.h"

namespace troupe {

// One Append call.  The next message is read only when the last is stored and the rate limiter
// admits writers, so a writer that is held back meets its own flow control; it is told so, too.
// Acks gather while one reply is on its way.
//
// Thread-safe; owns itself until gRPC is done with it.
class AppendCall final : public grpc::ServerBidiReactor<proto::AppendRequest, proto::AppendReply>,
                         public Call,
                         public std::enable_shared_from_this<AppendCall> {
 public:
  static AppendCall* Start(Shard* shard);

  void Drain() override ABSL_LOCKS_EXCLUDED(mu_);

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit AppendCall(Shard* shard) : shard_(shard) {}

  void Begin() ABSL_LOCKS_EXCLUDED(mu_);
  void Wake() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status HandleOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleRows() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Each starts what is due and allowed, if anything.
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The call ends with `status` when all acks are written; the first status counts.
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Shard* const shard_;
  absl::Mutex mu_;
  std::shared_ptr<AppendCall> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  WaiterPtr waiter_ ABSL_GUARDED_BY(mu_);
  Table* table_ ABSL_GUARDED_BY(mu_) = nullptr;        // null until opened
  proto::AppendRequest request_;                       // gRPC's while a read is under way
  proto::AppendReply reply_;                           // gRPC's while a write is under way
  std::vector<RowRunView> runs_ ABSL_GUARDED_BY(mu_);  // scratch
  absl::flat_hash_map<uint64_t, uint64_t> acks_ ABSL_GUARDED_BY(mu_);  // not yet written
  bool read_due_ ABSL_GUARDED_BY(mu_) = false;  // the last message is dealt with
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;   // for the rate limiter
  bool told_to_wait_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_APPEND_CALL_H_
