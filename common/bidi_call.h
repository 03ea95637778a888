#ifndef TROUPE_COMMON_BIDI_CALL_H_
#define TROUPE_COMMON_BIDI_CALL_H_

#include <functional>
#include <memory>
#include <utility>

#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace troupe {

// One bidirectional call: reads all the time, writes one message at a time.
//
// Its events come from gRPC's threads, never from inside a method called here, so that the owner
// may call every method under the lock that its events take.  The owner destroys it in `done`,
// neither earlier nor later, and keeps the channel alive: one whose last user is a gRPC thread
// would wait for that very thread.
template <typename Request, typename Reply>
class BidiCall final : public grpc::ClientBidiReactor<Request, Reply> {
 public:
  struct Events {
    std::function<void(const Reply&)> reply;
    // The last message given to Write is on its way; it may be freed, and the next one written.
    std::function<void()> written;
    // The call is over for writing: no Write may begin after this returns.
    std::function<void()> broken;
    std::function<void(const grpc::Status&)> done;
  };
  // Such as [&stub](context, reactor) { stub.async()->Append(context, reactor); }
  using Method = std::function<void(grpc::ClientContext*, BidiCall*)>;

  // Writes `first`, for which `written` comes as well.
  static std::unique_ptr<BidiCall> Start(const Method& method, Request first, Events events) {
    auto call = std::unique_ptr<BidiCall>(new BidiCall(std::move(first), std::move(events)));
    method(&call->context_, call.get());
    call->AddHold();  // until `broken`, so that Write is safe between two events
    call->StartRead(&call->reply_);
    call->StartWrite(&call->first_);
    call->StartCall();
    return call;
  }

  // `request` lives until `written` or `done`.  REQUIRES: no write is under way.
  void Write(const Request* request) { this->StartWrite(request); }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (ok) {
      events_.reply(reply_);
      this->StartRead(&reply_);
    } else {
      events_.broken();
      this->RemoveHold();
    }
  }
  void OnWriteDone(bool ok) override {
    if (ok) events_.written();
  }
  void OnDone(const grpc::Status& status) override {
    const auto done = std::move(events_.done);
    done(status);  // *this is gone
  }

 private:
  BidiCall(Request first, Events events) : first_(std::move(first)), events_(std::move(events)) {}

  grpc::ClientContext context_;
  Request first_;
  Reply reply_;
  Events events_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_BIDI_CALL_H_
