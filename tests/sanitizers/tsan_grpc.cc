// Makes ThreadSanitizer see how Debian's gRPC, which is not instrumented, orders the threads of
// its users: what a thread did before it started a batch happens before what any thread does after
// it learned of the batch's end.  gRPC's locks are Abseil's, see tsan_abseil.cc; between them are
// queues without locks, for which these functions stand.
#include <absl/status/status.h>
#include <grpc/grpc.h>
#include <grpcpp/server.h>
#include <grpcpp/support/server_callback.h>
#include <sanitizer/tsan_interface.h>

#include <utility>

#include "tests/sanitizers/next_definition.h"

struct grpc_cq_completion;
using DoneFunction = void (*)(void*, grpc_cq_completion*);

// Called where a batch has ended.  A callback runs on this thread after it, or on one to which
// this one hands it under a mutex.
void grpc_cq_end_op(grpc_completion_queue* queue, void* tag, absl::Status status, DoneFunction done,
                    void* done_argument, grpc_cq_completion* storage, bool internal) {
  __tsan_acquire(tag);
  troupe::Next<&grpc_cq_end_op>()(queue, tag, std::move(status), done, done_argument, storage,
                                  internal);
}

extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t nops,
                                                 void* tag, void* reserved) {
  __tsan_release(tag);
  return troupe::Next<&grpc_call_start_batch>()(call, ops, nops, tag, reserved);
}

extern "C" grpc_event grpc_completion_queue_next(grpc_completion_queue* queue,
                                                 gpr_timespec deadline, void* reserved) {
  const grpc_event event = troupe::Next<&grpc_completion_queue_next>()(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

extern "C" grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag,
                                                  gpr_timespec deadline, void* reserved) {
  const grpc_event event =
      troupe::Next<&grpc_completion_queue_pluck>()(queue, tag, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(tag);
  return event;
}

// Called when the last of a server call's references went, before OnDone.  Some are counted in
// gRPC's headers, in sight of ThreadSanitizer, and some in its library.
void grpc::internal::ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  __tsan_acquire(&callbacks_outstanding_);
  (this->*troupe::Next<&ServerCallbackCall::ScheduleOnDone>())(inline_ondone);
}

// A server that shuts down waits until the last of its calls is done; the others only count down.
void grpc::Server::UnrefWithPossibleNotify() {
  __tsan_release(this);
  (this->*troupe::Next<&Server::UnrefWithPossibleNotify>())();
}
void grpc::Server::UnrefAndWaitLocked() {
  (this->*troupe::Next<&Server::UnrefAndWaitLocked>())();
  __tsan_acquire(this);
}
