#include "learner/fused/cpu/thread_team.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace troupe::cpu {
namespace {

// Tens of microseconds: longer than a wait among threads that all have a core.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__SSE__)
  _mm_pause();
#endif
}

// While it lives, denormal numbers count as zero on this thread.
class DenormalsAreZero {
 public:
#if defined(__SSE__)
  DenormalsAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kAreZero); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kAreZero = 0x40;
  const unsigned before_;
#endif
};

}  // namespace

ThreadTeam::ThreadTeam(int size) : size_(size) {
  for (int thread = 1; thread < size; ++thread) {
    threads_.emplace_back([this, thread] { Serve(thread); });
  }
}

ThreadTeam::~ThreadTeam() {
  closing_ = true;
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::Run(absl::FunctionRef<void(int)> work) {
  [[maybe_unused]] const DenormalsAreZero mode;
  if (size_ == 1) return work(0);
  work_ = &work;
  runs_.fetch_add(1, std::memory_order_release);
  runs_.notify_all();
  work(0);
  Barrier();
}

void ThreadTeam::Serve(int thread) {
  [[maybe_unused]] const DenormalsAreZero mode;
  for (uint32_t served = 0;; ++served) {
    for (int i = 0; i < 10 * kSpins && runs_.load(std::memory_order_relaxed) == served; ++i) {
      Pause();
    }
    runs_.wait(served, std::memory_order_acquire);
    if (closing_) return;
    (*work_)(thread);
    Barrier();
  }
}

void ThreadTeam::Barrier() {
  if (size_ == 1) return;
  const uint32_t passed = passed_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.store(passed + 1, std::memory_order_release);
    return;
  }
  for (int i = 0; passed_.load(std::memory_order_acquire) == passed; ++i) {
    if (i < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace troupe::cpu
