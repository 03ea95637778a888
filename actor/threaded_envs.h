#ifndef TROUPE_ACTOR_THREADED_ENVS_H_
#define TROUPE_ACTOR_THREADED_ENVS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/vector_env.h"

namespace troupe {

// Environments of this process, stepped on a few threads, which work only inside Finish.
class ThreadedEnvs final : public VectorEnv {
 public:
  // `envs` are alike and not empty; `num_threads` at most as many.
  ThreadedEnvs(std::vector<std::unique_ptr<Env>> envs, int num_threads, uint64_t seed);
  ~ThreadedEnvs() override;

  void Reset() override;
  void Begin(absl::Span<const int> envs, absl::Span<const float> actions) override;
  absl::Span<const int> Finish() override;

 private:
  // One environment, with room for what it reads and writes.
  struct Slot {
    std::unique_ptr<Env> env;
    int64_t next_episode = 0;
    std::vector<double> action;       // [action]
    std::vector<double> observation;  // [observation]
  };

  int num_begun() const { return static_cast<int>(begun_.size()); }
  void StartEpisode(int i);
  void StepOne(int i);
  void StepUnclaimed();
  void WorkUntilStopped();

  // Constant after construction.
  const uint64_t seed_;
  const int claim_size_;  // environments that a thread claims at a time
  const int spins_;       // looks at an atomic before a thread sleeps on it

  // Element or row i, here and in VectorEnv, belongs to the thread that claimed environment i, and
  // to the caller between steps.
  std::vector<Slot> slots_;

  // Written by the caller before a step, published by claimed_.
  std::vector<int> begun_;
  absl::Span<const float> actions_;

  // Places of begun_ that are handed out in this step, counted so that the last one is num_envs() -
  // 1, and a thread that is late claims nothing.  The caller sets it, which starts the step; adding
  // to it claims the next ones, and sees everything that was written before.
  alignas(64) std::atomic<int> claimed_;
  // Environments that are done; at num_begun() the step is over.
  alignas(64) std::atomic<int> stepped_{0};
  // Counts steps; threads sleep on it between them.
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<bool> stopping_{false};  // set before the last change of round_

  std::vector<std::thread> threads_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_THREADED_ENVS_H_
