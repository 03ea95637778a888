#ifndef TROUPE_REPLAY_SERVER_APPEND_CALL_H_
#define TROUPE_REPLAY_SERVER_APPEND_CALL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/replay.pb.h"
#include "replay_server/shard.h"
#include "replay_server/stream_call.h"
#include "replay_server/wire.h"

namespace troupe {

// One Append call.  The next message is read only when the last is stored and the rate limiter
// admits writers, so a writer that is held back meets its own flow control; it is told so, too.
// Acks gather while one reply is on its way, and with ack = disk until their rows are synced;
// meanwhile reading goes on, up to append_window_bytes.  While the shard drains the writer is told
// so, and what it still has is read whatever the rate limiter says.
class AppendCall final
    : public StreamCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  static AppendCall* Start(Shard* shard, Peer peer);

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  bool RequestUnrolls(const Table* table, uint64_t policy_version) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void NoteDraining() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  AppendCall(Shard* shard, Peer peer) : StreamCall(shard, std::move(peer)) {}

  void Enter() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { StartRead(&request_bytes_); }
  void Wake() override ABSL_LOCKS_EXCLUDED(mu_);
  void FinishIfIdle() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { WriteNext(); }
  void DropUnsent() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DescribeItself(proto::CallDescription* description) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Status HandleMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TakeBudget(uint64_t declared_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleRows() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Acks once all that is stored now is synced, if that is asked for.
  void Ack(absl::Span<const proto::StreamAck> acks, uint64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes up the acks that a sync has freed.
  void Synced() ABSL_LOCKS_EXCLUDED(mu_);
  // Each starts what is due and allowed, if anything.
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StopWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  using Acks = absl::flat_hash_map<uint64_t, uint64_t>;  // rows held, by stream
  // What one sync has to cover.
  struct Unsynced {
    uint64_t sync = 0;
    uint64_t bytes = 0;
    Acks acks;
  };

  grpc::ByteBuffer request_bytes_;  // gRPC's while a read is under way
  grpc::ByteBuffer reply_bytes_;    // gRPC's while a write is under way
  AppendMessage request_ ABSL_GUARDED_BY(mu_);
  proto::AppendReply reply_ ABSL_GUARDED_BY(mu_);  // scratch
  bool preload_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t max_message_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t taken_bytes_ ABSL_GUARDED_BY(mu_) = 0;       // of the budget
  std::function<void()> synced_ ABSL_GUARDED_BY(mu_);   // calls Synced(), if there is a call still
  std::deque<Unsynced> unsynced_ ABSL_GUARDED_BY(mu_);  // oldest first
  uint64_t unsynced_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  Acks acks_ ABSL_GUARDED_BY(mu_);                     // not yet written
  bool opened_ ABSL_GUARDED_BY(mu_) = false;           // the first reply is written
  bool read_due_ ABSL_GUARDED_BY(mu_) = false;         // the last message is dealt with
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;          // for the table's word
  Scheduler::TimerId timer_ ABSL_GUARDED_BY(mu_) = 0;  // if it is not its turn
  bool held_back_ ABSL_GUARDED_BY(mu_) = false;
  bool told_to_wait_ ABSL_GUARDED_BY(mu_) = false;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;       // the shard
  bool told_draining_ ABSL_GUARDED_BY(mu_) = false;  // as the writer knows it
  bool drained_ ABSL_GUARDED_BY(mu_) = false;        // the writer, as it has said
  uint32_t streams_ ABSL_GUARDED_BY(mu_) = 0;
  RowSizes row_sizes_ ABSL_GUARDED_BY(mu_) = RowSizes(uint64_t{1});  // of its layout, once opened
  uint64_t rows_received_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t unrolls_wanted_of_ ABSL_GUARDED_BY(mu_) = 0;  // to be told; 0: nothing
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_APPEND_CALL_H_
