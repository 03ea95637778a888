#ifndef TROUPE_ACTOR_ROW_WRITER_IMPL_H_
#define TROUPE_ACTOR_ROW_WRITER_IMPL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "actor/row_writer.h"
#include "actor/unacked_rows.h"
#include "common/bidi_call.h"
#include "common/channel.h"
#include "common/row_codec.h"
#include "common/shard_link.h"
#include "proto/replay.pb.h"

namespace troupe {

// One mutex guards all; gRPC's operations are only started under it, never waited for.
class RowWriter::Impl final {
 public:
  Impl(RowWriterOptions options, const Layout& layout);
  ~Impl();

  // row_writer.cc: rows
  absl::Status WaitConnected(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<uint64_t> Append(int64_t env, absl::FunctionRef<void(absl::Span<char> row)> pack)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status SendNow() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Flush(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  int64_t UnrollRequests(uint64_t version) const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);
  std::string shard_name() const ABSL_LOCKS_EXCLUDED(mu_);
  RowWriterStats stats() const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<RowStream> streams() const ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using AppendCall = BidiCall<proto::AppendRequest, proto::AppendReply>;

  // The way to one shard.
  struct Lane {
    Lane(ShardLink to, const RowSizes& sizes, Backoff delays)
        : link(std::move(to)), rows(sizes), backoff(std::move(delays)) {}

    ShardLink link;
    UnackedRows rows;
    Backoff backoff;
    std::unique_ptr<AppendCall> call;
    bool open = false;  // the shard has answered; rows may be sent
    bool writing = false;
    bool held_back = false;                     // by the shard's rate limiter, or its operator
    bool draining = false;                      // the shard, by its operator
    bool drained = false;                       // the shard was told that nothing more comes
    std::shared_ptr<const RowMessage> written;  // kept while it is being written
    int64_t window_bytes = 0;
    absl::Time next_attempt = absl::InfinitePast();
    absl::Time away_since = absl::Now();  // meaningful while not open
    absl::Status fault;                   // why we cancelled the call
    absl::Status last_break;              // how the last call ended
  };

  // Where the next row of an environment goes.
  struct EnvState {
    uint64_t stream = 0;
    int64_t next_row = 0;
    int run = -1;  // index in the message under construction
  };

  // A random 64-bit name; never 0.
  static uint64_t RandomId();

  Lane& current() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return lanes_[current_]; }
  const Lane& current() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return lanes_[current_]; }

  // row_writer.cc: rows
  absl::Status MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Lane* LaneToDropFrom() ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int64_t UnackedBytes() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int64_t UnackedRowCount() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void AddRow(int64_t env, absl::FunctionRef<void(absl::Span<char> row)> pack)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Where the next row of an environment is added.
  std::string* RowsOf(int64_t env) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Seal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // row_writer_calls.cc: connections
  void AddLanes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnShardsChanged() ABSL_LOCKS_EXCLUDED(mu_);
  void BeginStreams() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MoveTo(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsAway(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool MayMoveTo(size_t shard, absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool Wanted(size_t shard, absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  void StartCall(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Send(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteDraining(size_t shard, bool draining) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Resume(size_t shard, const proto::AppendReply& reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnReply(size_t shard, const proto::AppendReply& reply) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWritten(size_t shard) ABSL_LOCKS_EXCLUDED(mu_);
  void OnBroken(size_t shard) ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone(size_t shard, const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void RunTimers() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Time HandleTimers(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RowWriterOptions options_;
  const proto::Layout layout_;
  const RowCodec codec_;
  const int64_t max_row_bytes_;

  mutable absl::Mutex mu_;
  absl::CondVar timer_;
  std::deque<Lane> lanes_ ABSL_GUARDED_BY(mu_);
  size_t home_ ABSL_GUARDED_BY(mu_) = 0;     // chosen for this writer, anew when a shard is added
  size_t current_ ABSL_GUARDED_BY(mu_) = 0;  // that new rows go to
  std::vector<EnvState> envs_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<RowMessage> message_ ABSL_GUARDED_BY(mu_);  // under construction
  std::string packed_ ABSL_GUARDED_BY(mu_);                   // scratch: a row to be encoded
  absl::Time seal_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  RowWriterStats stats_ ABSL_GUARDED_BY(mu_);
  uint64_t unrolls_wanted_of_ ABSL_GUARDED_BY(mu_) = 0;  // version of the last request; 0: none
  int64_t unroll_requests_ ABSL_GUARDED_BY(mu_) = 0;     // for that version

  int listener_ = 0;    // of the directory
  std::thread timers_;  // last, so that it sees the rest constructed
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROW_WRITER_IMPL_H_
