#ifndef TROUPE_ACTOR_VECTOR_ENV_H_
#define TROUPE_ACTOR_VECTOR_ENV_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "proto/config.pb.h"

namespace troupe {

// n instances of one environment, stepped together on a few threads.  Where an episode ends the
// next one starts within the same step.
//
// Used by one thread; its own threads work only inside Step.  What environment i does depends on
// the seed, i and the actions alone, not on the number of threads.  All spans stay valid, and their
// contents unchanged, until the next Reset or Step.
class VectorEnv final {
 public:
  // `num_threads` includes the one that calls Step.  Errors are MakeEnv's, or INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<VectorEnv>> Make(const proto::Environment& config,
                                                         const std::string& asset_dir, int num_envs,
                                                         int num_threads, uint64_t seed);
  ~VectorEnv();
  VectorEnv(const VectorEnv&) = delete;
  VectorEnv& operator=(const VectorEnv&) = delete;

  const EnvSpec& spec() const { return spec_; }
  int num_envs() const { return static_cast<int>(slots_.size()); }

  // Starts a new episode everywhere.
  void Reset();
  // `actions`: [n, action].  `active`: [n], or empty for all; an environment whose element is 0 is
  // not stepped, shows the same observation, and no reward or end.
  // REQUIRES: Reset was called, and the sizes are right.
  void Step(absl::Span<const float> actions, absl::Span<const uint8_t> active = {});

  // What to act on next: of the new episode where one ended.  [n, observation]
  absl::Span<const float> observations() const { return observations_; }
  // s_{t+1} of the step: the last observation where an episode ended.  [n, observation]
  absl::Span<const float> next_observations() const { return next_observations_; }
  absl::Span<const float> rewards() const { return rewards_; }          // [n]
  absl::Span<const uint8_t> terminated() const { return terminated_; }  // [n]
  absl::Span<const uint8_t> truncated() const { return truncated_; }    // [n]
  // Sum of rewards and number of steps of the episode that just ended; else 0.  [n]
  absl::Span<const double> episode_returns() const { return episode_returns_; }
  absl::Span<const int64_t> episode_lengths() const { return episode_lengths_; }

  // Seed of episode `episode` (0, 1, ...) of environment `env`.
  static uint64_t EpisodeSeed(uint64_t seed, int64_t env, int64_t episode);

 private:
  // One environment, with room for what it reads and writes.
  struct Slot {
    std::unique_ptr<Env> env;
    int64_t next_episode = 0;
    double episode_return = 0;
    int64_t episode_steps = 0;
    std::vector<double> action;       // [action]
    std::vector<double> observation;  // [observation]
  };

  VectorEnv(std::vector<std::unique_ptr<Env>> envs, int num_threads, uint64_t seed);

  void StartEpisode(int i);
  void StepOne(int i);
  void SkipOne(int i);
  void StepUnclaimed();
  void WorkUntilStopped();

  // Constant after construction.
  const uint64_t seed_;
  const int claim_size_;  // environments that a thread claims at a time
  const int spins_;       // looks at an atomic before a thread sleeps on it
  EnvSpec spec_;

  // Element or row i belongs to the thread that claimed environment i, and to the caller
  // between steps.
  std::vector<Slot> slots_;
  std::vector<float> observations_, next_observations_, rewards_;
  std::vector<uint8_t> terminated_, truncated_;
  std::vector<double> episode_returns_;
  std::vector<int64_t> episode_lengths_;

  // Written by the caller before a step, published by claimed_.
  absl::Span<const float> actions_;
  absl::Span<const uint8_t> active_;

  // Environments handed out in this step.  The caller sets it to 0, which starts the step; adding
  // to it claims the next ones, and sees everything that was written before the 0.
  alignas(64) std::atomic<int> claimed_;
  // Environments that are done; at num_envs() the step is over.
  alignas(64) std::atomic<int> stepped_{0};
  // Counts steps; threads sleep on it between them.
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<bool> stopping_{false};  // set before the last change of round_

  std::vector<std::thread> threads_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_VECTOR_ENV_H_
