#ifndef TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_
#define TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_

#include <chrono>
#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "proto/replay.pb.h"
#include "replay_server/calls.h"
#include "replay_server/shard.h"
#include "replay_server/table.h"

namespace troupe {

// One Sample call: a queue of requests, answered in order, one reply on its way at a time.  The
// request at the head waits for the table or for its own timeout, whichever is first.
//
// Thread-safe; owns itself until gRPC is done with it.
class SampleCall final : public grpc::ServerBidiReactor<proto::SampleRequest, proto::SampleReply>,
                         public Call,
                         public std::enable_shared_from_this<SampleCall> {
 public:
  static SampleCall* Start(Shard* shard);

  void Drain() override ABSL_LOCKS_EXCLUDED(mu_);

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Request {
    SampleQuery query;
    Clock::time_point deadline;
  };

  explicit SampleCall(Shard* shard) : shard_(shard) {}

  void Begin() ABSL_LOCKS_EXCLUDED(mu_);
  // The table may admit the head of the queue, or its time is up.
  void Wake() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status HandleOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Answers the head of the queue if it can be answered now, else sees that it is taken up again.
  void AnswerNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckReplySize(const SampleQuery& query) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Reply(SampleBatch batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StopWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The call ends with `status` when the reply under way is written; the first status counts.
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Shard* const shard_;
  absl::Mutex mu_;
  std::shared_ptr<SampleCall> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  WaiterPtr waiter_ ABSL_GUARDED_BY(mu_);
  Table* table_ ABSL_GUARDED_BY(mu_) = nullptr;  // null until opened
  proto::SampleRequest request_;                 // gRPC's while a read is under way
  proto::SampleReply reply_;                     // gRPC's while a write is under way
  std::deque<Request> queue_ ABSL_GUARDED_BY(mu_);
  Scheduler::TimerId timer_ ABSL_GUARDED_BY(mu_) = 0;  // the deadline of the head, if it waits
  bool read_due_ ABSL_GUARDED_BY(mu_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mu_) = false;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mu_);
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_
