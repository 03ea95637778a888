#ifndef TROUPE_TESTS_BENCH_REPLAY_STREAM_CLIENT_H_
#define TROUPE_TESTS_BENCH_REPLAY_STREAM_CLIENT_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/client_callback.h"
#include "tests/bench/replay/measure.h"

namespace troupe {

// One bidirectional call of raw messages on a channel of its own: what all load clients share.
// Whoever makes one calls Start, and before it dies End and Await.
//
// Thread-safe.  Derived classes say what comes next in HandleMessage and NextMessage.
class StreamClient : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // `measuring` outlives the client.
  StreamClient(std::shared_ptr<grpc::Channel> channel, std::string method,
               const Measuring* measuring);

  void Start() ABSL_LOCKS_EXCLUDED(mu_);
  // Cancels the call; whatever is under way is lost.
  void End() { context_.TryCancel(); }
  // Waits until the call has ended by itself or by End; how it did.
  const grpc::Status& Await();

  // Writes what there is to write now; for messages that wait for a moment.
  void Wake() ABSL_LOCKS_EXCLUDED(mu_);

  const Tally& tally() const { return tally_; }

  void OnReadDone(bool ok) final ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) final ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone(const grpc::Status& status) final;

 protected:
  // Looks at a message before the lock is taken; nothing that NextMessage uses.
  virtual void Receive(const grpc::ByteBuffer& message) = 0;
  // Takes what Receive has found into account.
  virtual void HandleReceived() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // True: `message` is to be written.  False: not now, ask again after the next message, or Wake.
  virtual bool NextMessage(grpc::ByteBuffer* message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // The call has ended.
  virtual void HandleEnd() {}

  // Nothing more will be written.
  void CloseWrites() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  const Measuring& measuring_;
  Tally tally_;

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string method_;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer received_;  // gRPC's while a read is under way
  grpc::ByteBuffer message_;   // gRPC's while a write is under way
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool writes_closed_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_;  // set before done_
  absl::Notification done_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_BENCH_REPLAY_STREAM_CLIENT_H_
