#ifndef TROUPE_COMMON_REPLAY_CLIENT_IMPL_H_
#define TROUPE_COMMON_REPLAY_CLIENT_IMPL_H_

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/bidi_call.h"
#include "common/channel.h"
#include "common/replay_client.h"
#include "common/row_codec.h"
#include "common/shard_link.h"
#include "proto/replay.pb.h"

namespace troupe {

// One mutex guards all; gRPC's operations are only started under it, never waited for.
//
// A session with a shard is two Sample calls: one for windows, one for polls, which the shard may
// hold back without holding back windows.  They live and die together.
class ReplayClient::Impl final {
 public:
  explicit Impl(ReplayClientOptions options);
  ~Impl();

  // replay_client.cc: batches
  absl::StatusOr<TableInfo> WaitForTable(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<WindowBatch> NextBatch(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<int64_t> AdmitDraws(int64_t most, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status UpdatePriorities(absl::Span<const int32_t> shards,
                                absl::Span<const uint64_t> row_ids,
                                absl::Span<const float> priorities) ABSL_LOCKS_EXCLUDED(mu_);
  int64_t RequestUnrolls(uint64_t version) ABSL_LOCKS_EXCLUDED(mu_);
  ReplayCounts counts() const ABSL_LOCKS_EXCLUDED(mu_);
  ReplayClientStats stats() const ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using SampleCall = BidiCall<proto::SampleRequest, proto::SampleReply>;

  // A batch under way.
  struct Batch {
    WindowBatch windows;
    int64_t missing = 0;  // windows not received
  };

  // Windows of one batch that are asked of one shard; of none while it is an orphan.
  struct Piece {
    std::shared_ptr<Batch> batch;  // nullptr: a question for the counts alone
    int64_t first = 0;             // index in the batch
    int64_t count = 0;             // windows
    double share = 0;              // probability with which a draw picked the shard
    bool tells_draws = false;      // a question that carries what was drawn here
  };

  // One of the two calls of a session.
  struct Wire {
    std::unique_ptr<SampleCall> call;
    bool usable = false;  // may be written to
    bool writing = false;
    proto::SampleRequest request;  // being written
  };

  struct Lane {
    Lane(ShardLink to, Backoff delays) : link(std::move(to)), backoff(std::move(delays)) {}

    ShardLink link;
    Backoff backoff;
    Wire windows;
    Wire polls;
    bool greeted = false;               // the first question of the session is out
    bool ending = false;                // its calls are cancelled
    bool tried = false;                 // was up, or found gone, at least once
    bool up = false;                    // the shard has answered in this session
    std::deque<Piece> to_send;          // asked next
    std::deque<Piece> asked;            // answers come in this order
    int64_t num_asked = 0;              // windows in `to_send`, `asked` and being copied
    proto::PriorityUpdates priorities;  // to be sent; of a shard that is up
    absl::Time priorities_due = absl::InfiniteFuture();
    bool priorities_go_alone = false;  // they wait for no request that they could ride on
    bool poll_open = false;            // a poll has no answer yet
    absl::Time answer_due;             // of the open poll; any answer puts it off
    absl::Time next_poll = absl::InfinitePast();
    absl::Time next_attempt = absl::InfinitePast();
    proto::TableCounts counts;  // newest known; those of a shard that is gone stay
    uint64_t drawn = 0;         // what `sampled` is to be, of a learner that draws itself
    bool draws_due = false;     // the shard does not know yet what was drawn
    bool draws_told = false;    // and it has not answered yet to what it was told
    double mass = 0;
    absl::Status fault;       // why we cancelled the calls
    absl::Status last_break;  // how the last session ended
  };

  // replay_client.cc: batches
  void AddLanes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnShardsChanged() ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<ShardLink> Links() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Describe(absl::Time deadline, proto::TableDescription* table, TableInfo* info,
                        std::string* answers);
  absl::Status CheckTable(const proto::TableDescription& found, const std::string& shard,
                          proto::TableDescription* table) const;
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool AllTried() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void NoteStarvation(bool starved) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(const Piece& piece, int64_t received) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ReplayCounts Sum() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // With what was asked for as sampled already.
  LimiterCounts CountsWithAsked() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int64_t NumAsked() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::string WaitsFor() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  // replay_client_split.cc
  std::vector<double> Masses() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  double TotalMass() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void PlaceOrphans() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // replay_client_draws.cc: windows that the learner draws itself
  int64_t BatchesThatFit(int64_t most) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void NoteDraws(int64_t windows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void KeepDraws(Lane& lane, const proto::TableCounts& before, const proto::TableCounts& now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static uint64_t Sampled(const Lane& lane) {
    return std::max<uint64_t>(lane.counts.sampled(), lane.drawn);
  }

  // replay_client_calls.cc: sessions
  void StartSession(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartCall(size_t shard, Wire& wire) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndSession(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendNext(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Poll(size_t shard, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveUpSilent(size_t shard, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillTotals(size_t shard, proto::SampleRequest& request) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void TakePriorities(Lane& lane, proto::SampleRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropPriorities(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Learn(Lane& lane, const proto::SampleReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckReply(const proto::SampleReply& reply, int64_t asked) const;
  absl::Status CopyWindows(const proto::SampleReply& reply, const Piece& piece, size_t shard) const;
  void OnWindows(size_t shard, const proto::SampleReply& reply) ABSL_LOCKS_EXCLUDED(mu_);
  void OnPolled(size_t shard, const proto::SampleReply& reply) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWritten(size_t shard, bool polls) ABSL_LOCKS_EXCLUDED(mu_);
  void OnBroken(size_t shard, bool polls) ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone(size_t shard, bool polls, const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void RunTimers() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Time HandleTimers(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ReplayClientOptions options_;
  const RateLimiter limiter_;
  // Constant once sessions have begun.
  int64_t window_bytes_ = 0;  // of packed rows
  int64_t window_rows_ = 0;
  std::unique_ptr<const RowCodec> codec_;  // not null where rows are encoded

  mutable absl::Mutex mu_;
  absl::CondVar timer_;
  std::deque<Lane> lanes_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<BatchPool> pool_ ABSL_GUARDED_BY(mu_);  // not null: sessions have begun
  bool prefetching_ ABSL_GUARDED_BY(mu_) = false;
  bool awaits_draws_ ABSL_GUARDED_BY(mu_) = false;                   // AdmitDraws waits
  std::deque<std::shared_ptr<Batch>> batches_ ABSL_GUARDED_BY(mu_);  // oldest first
  std::deque<Piece> orphans_ ABSL_GUARDED_BY(mu_);  // asked of no shard, or of one that is gone
  std::mt19937_64 random_ ABSL_GUARDED_BY(mu_);
  bool starved_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time starved_since_ ABSL_GUARDED_BY(mu_);
  absl::Status permanent_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  ReplayClientStats stats_ ABSL_GUARDED_BY(mu_);

  int listener_ = 0;    // of the directory
  std::thread timers_;  // last, so that it sees the rest constructed
};

}  // namespace troupe

#endif  // TROUPE_COMMON_REPLAY_CLIENT_IMPL_H_
