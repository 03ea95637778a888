// Makes ThreadSanitizer see the locks of Debian's Abseil, which is not instrumented.
//
// The functions of absl::Mutex, CondVar and Notification that order threads are defined here once
// more.  The dynamic linker prefers a program's own definitions, for gRPC's libraries and Abseil's
// too, so every lock of the process passes here: each function tells ThreadSanitizer what happens
// before what, and calls the library's.  Only in programs of a thread-sanitized build.
#include <absl/synchronization/mutex.h>
#include <absl/synchronization/notification.h>
#include <sanitizer/tsan_interface.h>

#include <utility>

#include "tests/sanitizers/next_definition.h"

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

// The mutex that Condition::Eval is about: Abseil evaluates conditions, other threads' too, inside
// the functions below, while it holds that mutex.
thread_local void* evaluated_mutex = nullptr;

// For the length of a function that ends with the mutex held, or no longer held.
class ScopedEvaluation final {
 public:
  explicit ScopedEvaluation(void* mutex) : outer_(std::exchange(evaluated_mutex, mutex)) {}
  ~ScopedEvaluation() { evaluated_mutex = outer_; }
  ScopedEvaluation(const ScopedEvaluation&) = delete;
  ScopedEvaluation& operator=(const ScopedEvaluation&) = delete;

 private:
  void* const outer_;
};

// Calls the library's `kMember` of `object`, which begins without `mutex`, and ends with it.
template <auto kMember, typename Object, typename... Arguments>
auto Acquiring(void* mutex, Object* object, Arguments&&... arguments) {
  struct Acquire {
    ~Acquire() { __tsan_acquire(mutex); }
    void* const mutex;
  } acquire{mutex};
  ScopedEvaluation evaluation(mutex);
  return (object->*troupe::Next<kMember>())(std::forward<Arguments>(arguments)...);
}

// The same for one that begins with `mutex`, and lets go of it for good or for a while.
template <auto kMember, typename Object, typename... Arguments>
auto Releasing(void* mutex, Object* object, Arguments&&... arguments) {
  __tsan_release(mutex);
  ScopedEvaluation evaluation(mutex);
  return (object->*troupe::Next<kMember>())(std::forward<Arguments>(arguments)...);
}

// The same for one that begins and ends with `mutex`.
template <auto kMember, typename Object, typename... Arguments>
auto Waiting(void* mutex, Object* object, Arguments&&... arguments) {
  __tsan_release(mutex);
  return Acquiring<kMember>(mutex, object, std::forward<Arguments>(arguments)...);
}

// Acquiring with a condition, which may be handed to a thread that holds the mutex already.
template <auto kMember, typename... Arguments>
auto AcquiringWhen(Mutex* mutex, const Condition& condition, Arguments&&... arguments) {
  __tsan_release(const_cast<Condition*>(&condition));
  return Acquiring<kMember>(mutex, mutex, condition, std::forward<Arguments>(arguments)...);
}

}  // namespace

bool Condition::Eval() const {
  void* const mutex = evaluated_mutex;
  if (mutex == nullptr) return (this->*troupe::Next<&Condition::Eval>())();
  __tsan_acquire(mutex);
  __tsan_acquire(const_cast<Condition*>(this));
  const bool holds = (this->*troupe::Next<&Condition::Eval>())();
  __tsan_release(mutex);
  return holds;
}

void Mutex::Lock() { Acquiring<&Mutex::Lock>(this, this); }
void Mutex::Unlock() { Releasing<&Mutex::Unlock>(this, this); }
void Mutex::ReaderLock() { Acquiring<&Mutex::ReaderLock>(this, this); }
void Mutex::ReaderUnlock() { Releasing<&Mutex::ReaderUnlock>(this, this); }

bool Mutex::TryLock() { return Acquiring<&Mutex::TryLock>(this, this); }
bool Mutex::ReaderTryLock() { return Acquiring<&Mutex::ReaderTryLock>(this, this); }

void Mutex::LockWhen(const Condition& condition) {
  AcquiringWhen<&Mutex::LockWhen>(this, condition);
}
bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  return AcquiringWhen<&Mutex::LockWhenWithTimeout>(this, condition, timeout);
}
bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  return AcquiringWhen<&Mutex::LockWhenWithDeadline>(this, condition, deadline);
}
void Mutex::ReaderLockWhen(const Condition& condition) {
  AcquiringWhen<&Mutex::ReaderLockWhen>(this, condition);
}
bool Mutex::ReaderLockWhenWithTimeout(const Condition& condition, Duration timeout) {
  return AcquiringWhen<&Mutex::ReaderLockWhenWithTimeout>(this, condition, timeout);
}
bool Mutex::ReaderLockWhenWithDeadline(const Condition& condition, Time deadline) {
  return AcquiringWhen<&Mutex::ReaderLockWhenWithDeadline>(this, condition, deadline);
}

void Mutex::Await(const Condition& condition) { Waiting<&Mutex::Await>(this, this, condition); }
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  return Waiting<&Mutex::AwaitWithTimeout>(this, this, condition, timeout);
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  return Waiting<&Mutex::AwaitWithDeadline>(this, this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) { Waiting<&CondVar::Wait>(mutex, this, mutex); }
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return Waiting<&CondVar::WaitWithTimeout>(mutex, this, mutex, timeout);
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  return Waiting<&CondVar::WaitWithDeadline>(mutex, this, mutex, deadline);
}

// HasBeenNotified is inline: it loads the atomic, which follows the mutex, in sight of
// ThreadSanitizer.  So that is the address that orders.
static_assert(sizeof(Notification) == 2 * sizeof(Mutex));
void* Notified(const Notification* notification) {
  return const_cast<Mutex*>(reinterpret_cast<const Mutex*>(notification) + 1);
}

void Notification::Notify() {
  __tsan_release(Notified(this));
  (this->*troupe::Next<&Notification::Notify>())();
}
void Notification::WaitForNotification() const {
  (this->*troupe::Next<&Notification::WaitForNotification>())();
  __tsan_acquire(Notified(this));
}
bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  const bool notified =
      (this->*troupe::Next<&Notification::WaitForNotificationWithTimeout>())(timeout);
  __tsan_acquire(Notified(this));
  return notified;
}
bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  const bool notified =
      (this->*troupe::Next<&Notification::WaitForNotificationWithDeadline>())(deadline);
  __tsan_acquire(Notified(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
