#ifndef TROUPE_COMMON_READ_CALL_H_
#define TROUPE_COMMON_READ_CALL_H_

#include <functional>
#include <memory>
#include <utility>

#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace troupe {

// One call whose replies are a stream, read one by one; what is not read stays with the server.
//
// Its events come from gRPC's threads, never from inside a method called here, so that the owner
// may call every method under the lock that its events take.  The owner destroys it in `done`,
// neither earlier nor later, and keeps the channel alive: one whose last user is a gRPC thread
// would wait for that very thread.
template <typename Request, typename Reply>
class ReadCall final : public grpc::ClientReadReactor<Reply> {
 public:
  struct Events {
    // Nothing more is read before ReadOn().  The reply may be moved from.
    std::function<void(Reply*)> reply;
    std::function<void(const grpc::Status&)> done;
  };
  using Method = std::function<void(grpc::ClientContext*, const Request*, ReadCall*)>;

  static std::unique_ptr<ReadCall> Start(const Method& method, Request request, Events events) {
    auto call = std::unique_ptr<ReadCall>(new ReadCall(std::move(request), std::move(events)));
    method(&call->context_, &call->request_, call.get());
    call->AddHold();  // until a read fails, so that ReadOn is safe at any time before
    call->StartRead(&call->reply_);
    call->StartCall();
    return call;
  }

  // REQUIRES: once after each `reply`, also after Cancel(), or `done` does not come.
  void ReadOn() { this->StartRead(&reply_); }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (ok) {
      events_.reply(&reply_);
    } else {
      this->RemoveHold();
    }
  }
  void OnDone(const grpc::Status& status) override {
    const auto done = std::move(events_.done);
    done(status);  // *this is gone
  }

 private:
  ReadCall(Request request, Events events)
      : request_(std::move(request)), events_(std::move(events)) {}

  grpc::ClientContext context_;
  const Request request_;
  Reply reply_;
  Events events_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_READ_CALL_H_
