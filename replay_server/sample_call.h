#ifndef TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_
#define TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_

#include <chrono>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "proto/replay.pb.h"
#include "replay_server/shard.h"
#include "replay_server/stream_call.h"
#include "replay_server/table.h"

namespace troupe {

// One Sample call: a queue of requests, answered in order, one reply on its way at a time.  The
// request at the head waits for the table or for its own timeout, whichever is first.
class SampleCall final
    : public StreamCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  static SampleCall* Start(Shard* shard, Peer peer);

  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Request {
    SampleQuery query;
    Clock::time_point deadline;
  };

  SampleCall(Shard* shard, Peer peer) : StreamCall(shard, std::move(peer)) {}

  void Enter() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { StartRead(&request_bytes_); }
  // The table may admit the head of the queue, or its time is up.
  void Wake() override ABSL_LOCKS_EXCLUDED(mu_);
  void FinishIfIdle() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DescribeItself(proto::CallDescription* description) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    description->set_method("Sample");
    description->set_windows(windows_sent_);
  }

  absl::Status HandleMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HandleRequest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Answers the head of the queue if it can be answered now, else sees that it is taken up again.
  void AnswerNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Bytes of the reply, at most; RESOURCE_EXHAUSTED: more than one reply may have.
  absl::StatusOr<uint64_t> ReplyBytes(const SampleQuery& query) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReturnBudget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Replies with the windows that were asked for at `begin`.
  void Answer(const SampleQuery& query, Clock::time_point begin) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Reply() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StopWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::ByteBuffer request_bytes_;                     // gRPC's while a read is under way
  grpc::ByteBuffer reply_bytes_;                       // gRPC's while a write is under way
  proto::SampleRequest request_ ABSL_GUARDED_BY(mu_);  // scratch
  SampleBatch batch_ ABSL_GUARDED_BY(mu_);             // scratch
  std::deque<Request> queue_ ABSL_GUARDED_BY(mu_);
  Scheduler::TimerId timer_ ABSL_GUARDED_BY(mu_) = 0;  // the deadline of the head, if it waits
  uint64_t taken_bytes_ ABSL_GUARDED_BY(mu_) = 0;      // of the budget, for the head or its reply
  bool read_due_ ABSL_GUARDED_BY(mu_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mu_) = false;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t windows_sent_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_SAMPLE_CALL_H_
