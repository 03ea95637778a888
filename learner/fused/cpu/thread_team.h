#ifndef TROUPE_LEARNER_FUSED_CPU_THREAD_TEAM_H_
#define TROUPE_LEARNER_FUSED_CPU_THREAD_TEAM_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace troupe::cpu {

// Threads that work on one thing together, in steps of microseconds: whoever waits spins for a
// while before it gives its core away.  Denormal numbers count as zero in what they run.
//
// Run() is called by one thread, the owner; Barrier() by all of them within a run.
class ThreadTeam final {
 public:
  // `size`: threads, the owner included.
  explicit ThreadTeam(int size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  // Calls work(0) here and work(1), ..., work(size - 1) on the others; returns when all are done.
  void Run(absl::FunctionRef<void(int thread)> work);

  // Waits until all threads have called it.  What each has written before, all see after.
  void Barrier();

 private:
  void Serve(int thread);

  const int size_;
  std::vector<std::thread> threads_;
  // Runs begun.  What lies in work_ and closing_ then was written before.
  std::atomic<uint32_t> runs_ = 0;
  const absl::FunctionRef<void(int)>* work_ = nullptr;
  bool closing_ = false;
  // At the barrier: how many are there, and how often all of them were.
  std::atomic<int> arrived_ = 0;
  std::atomic<uint32_t> passed_ = 0;
};

}  // namespace troupe::cpu

#endif  // TROUPE_LEARNER_FUSED_CPU_THREAD_TEAM_H_
