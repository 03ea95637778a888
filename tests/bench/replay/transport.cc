#include "tests/bench/replay/transport.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"

namespace troupe {
namespace {

constexpr int kIoBufferBytes = 256 << 10;  // as the shards have it

grpc::Slice Payload(int64_t bytes) { return grpc::Slice(std::string(bytes, 'x')); }

// Answers each message.  Owns itself until gRPC is done with it.
class AnsweringCall final : public grpc::ServerGenericBidiReactor {
 public:
  explicit AnsweringCall(const grpc::Slice& payload) : answer_(&payload, 1) {
    StartRead(&received_);
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    if (!ok) {
      ended_ = true;
      if (!writing_) Finish(grpc::Status::OK);
      return;
    }
    ++due_;
    AnswerNext();
    StartRead(&received_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (ended_) return Finish(grpc::Status::OK);
    if (ok) AnswerNext();
  }
  void OnDone() override { delete this; }

 private:
  void AnswerNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || due_ == 0) return;
    --due_;
    writing_ = true;
    StartWrite(&answer_);
  }

  absl::Mutex mu_;
  grpc::ByteBuffer received_;
  const grpc::ByteBuffer answer_;
  int64_t due_ ABSL_GUARDED_BY(mu_) = 0;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

class AnsweringService final : public grpc::CallbackGenericService {
 public:
  explicit AnsweringService(int64_t reply_bytes) : payload_(Payload(reply_bytes)) {}

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new AnsweringCall(payload_);
  }

 private:
  const grpc::Slice payload_;
};

void Serve(int64_t reply_bytes, int port_pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  AnsweringService service(reply_bytes);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kIoBufferBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, kIoBufferBytes);
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || write(port_pipe, &port, sizeof(port)) != sizeof(port)) _exit(1);
  server->Wait();
}

}  // namespace

TransportServer ForkTransportServer(int64_t reply_bytes) {
  int pipe_ends[2];
  TransportServer server{-1, 0};
  if (pipe(pipe_ends) != 0) return server;
  server.pid = fork();
  if (server.pid == 0) {
    close(pipe_ends[0]);
    Serve(reply_bytes, pipe_ends[1]);
    _exit(0);
  }
  close(pipe_ends[1]);
  if (read(pipe_ends[0], &server.port, sizeof(server.port)) != sizeof(server.port)) server.port = 0;
  close(pipe_ends[0]);
  return server;
}

TransportClient::TransportClient(std::shared_ptr<grpc::Channel> channel, const TransportLoad& load,
                                 const Measuring* measuring)
    : StreamClient(std::move(channel), "/transport/Answer", measuring),
      load_(load),
      payload_(Payload(load.message_bytes)) {}

void TransportClient::HandleReceived() {
  if (sent_.empty()) return;
  NoteLatency(measuring_, sent_.front(), &tally_);
  sent_.pop_front();
  tally_.units.fetch_add(1, std::memory_order_relaxed);
}

bool TransportClient::NextMessage(grpc::ByteBuffer* message) {
  if (sent_.size() >= static_cast<size_t>(load_.in_flight)) return false;
  sent_.push_back(Clock::now());
  *message = grpc::ByteBuffer(&payload_, 1);
  return true;
}

}  // namespace troupe
