#ifndef TROUPE_ACTOR_VECTOR_ENV_H_
#define TROUPE_ACTOR_VECTOR_ENV_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "proto/config.pb.h"

namespace troupe {

// n instances of one environment, stepped together.  Where an episode ends the next one starts
// within the same step.
//
// Used by one thread.  What environment i does depends on the seed, i and the actions alone.  All
// spans stay valid, and what they say of an environment unchanged, until it is begun again.
class VectorEnv {
 public:
  // `num_threads` includes the one that calls Finish; environments in Python have processes
  // instead. Errors are MakeEnv's, or INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<VectorEnv>> Make(const proto::Environment& config,
                                                         const std::string& asset_dir, int num_envs,
                                                         int num_threads, uint64_t seed);
  virtual ~VectorEnv() = default;
  VectorEnv(const VectorEnv&) = delete;
  VectorEnv& operator=(const VectorEnv&) = delete;

  const EnvSpec& spec() const { return spec_; }
  int num_envs() const { return static_cast<int>(rewards_.size()); }

  // Starts a new episode everywhere.  REQUIRES: all steps are finished.
  virtual void Reset() = 0;
  // Lets these environments, which are not stepping, take a step.  `actions`: of all environments,
  // [n, action].  REQUIRES: Reset was called.
  virtual void Begin(absl::Span<const int> envs, absl::Span<const float> actions) = 0;
  // Waits for environments that were begun, and returns those that are finished: all, or, of ones
  // that work elsewhere, at least some of them if it does not take too long.
  virtual absl::Span<const int> Finish() = 0;
  // Begin and Finish for all environments.  Not for a vector in Python of the mode NEXT_STEP, of
  // which those whose episode ended are done with the next step of the others.
  void Step(absl::Span<const float> actions);

  // What to act on next: of the new episode where one ended.  [n, observation]
  absl::Span<const float> observations() const { return observations_; }
  // s_{t+1} of the step: the last observation where an episode ended.  [n, observation]
  absl::Span<const float> next_observations() const { return next_observations_; }
  // The images of both.  [image_bytes]
  absl::Span<const uint8_t> images(int env) const { return images_[env]; }
  absl::Span<const uint8_t> next_images(int env) const { return next_images_[env]; }
  absl::Span<const float> rewards() const { return rewards_; }          // [n]
  absl::Span<const uint8_t> terminated() const { return terminated_; }  // [n]
  absl::Span<const uint8_t> truncated() const { return truncated_; }    // [n]
  // 1 where the environment failed instead of stepping: the episode is lost, another one has begun,
  // and there is nothing but its first observation.  [n]
  absl::Span<const uint8_t> lost() const { return lost_; }
  // Sum of rewards and number of steps of the episode that just ended; else 0.  [n]
  absl::Span<const double> episode_returns() const { return episode_returns_; }
  absl::Span<const int64_t> episode_lengths() const { return episode_lengths_; }

  // Failures of environments so far.  Thread-safe.
  struct Faults {
    int64_t crashes = 0, timeouts = 0, invalid = 0;
  };
  virtual Faults faults() const { return {}; }

  // Seed of episode `episode` (0, 1, ...) of environment `env`.
  static uint64_t EpisodeSeed(uint64_t seed, int64_t env, int64_t episode);

 protected:
  VectorEnv(EnvSpec spec, int num_envs);

  // Takes down what a step of environment i gave, and keeps the sums of its episode.
  void Record(int i, const StepResult& result);
  // Environment i has begun an episode and not stepped.
  void RecordBeginning(int i, bool lost);

  const EnvSpec spec_;
  std::vector<float> observations_, next_observations_, rewards_;
  std::vector<absl::Span<const uint8_t>> images_, next_images_;
  std::vector<uint8_t> terminated_, truncated_, lost_;
  std::vector<double> episode_returns_;
  std::vector<int64_t> episode_lengths_;

 private:
  // Of the episode under way.
  struct Sums {
    double reward = 0;
    int64_t steps = 0;
  };
  std::vector<Sums> sums_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_VECTOR_ENV_H_
