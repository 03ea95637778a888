#ifndef TROUPE_ACTOR_ROLLOUT_H_
#define TROUPE_ACTOR_ROLLOUT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "actor/frame_stacks.h"
#include "actor/policy_feed.h"
#include "actor/row_packer.h"
#include "actor/row_writer.h"
#include "actor/vector_env.h"
#include "common/metrics.h"
#include "common/policy.h"
#include "common/version.h"

namespace troupe {

// Counters that a rollout keeps up to date for Prometheus.
struct RolloutMetrics {
  explicit RolloutMetrics(Metrics& metrics);

  prometheus::Counter& env_steps;
  prometheus::Counter& episodes;
  prometheus::Counter& policies;
  prometheus::Gauge& episode_return;  // of the last episode that ended
  prometheus::Gauge& episode_length;
  prometheus::Gauge& policy_version;
};

// How an actor's rows are cut for an on-policy learner.
struct UnrollRule {
  // Rows of an unroll but the last; 0: rows are not cut.
  int64_t length = 0;
  // Every environment makes one unroll with one policy, and then waits for the next, or until the
  // learner asks for more of this one.
  bool synchronous = false;
  // Rows at the beginning of a stream that are in no unroll: the stacks of frames in the first one
  // reach into them (common/frame_stack.h).
  int64_t lead_rows = 0;
};

// The actor's loop: one batched forward for every environment that waits for an action, steps of
// those, and a row for each that is done.
//
// The episode of an environment that failed ends as truncated, with the last observation that it
// gave.
//
// With an UnrollRule the last row of each unroll, the rows lead_rows + [k W, (k + 1) W) of a stream
// with W = length + 1, holds no action: it is the last of an episode, or one flagged kCut.
//
// Owned and run by one thread; only RequestStop may come from another.
class Rollout final {
 public:
  // All of them outlive the rollout.  `seed` differs between any two incarnations of actors.
  Rollout(VectorEnv& envs, const RowPacker& packer, RowWriter& writer, PolicyFeed& feed,
          RolloutMetrics& metrics, uint64_t seed, const UnrollRule& unroll);

  // Steps until RequestStop or until the writer is stopped (both OK), or something fails:
  // INTERNAL names an environment that gave numbers that are not finite.
  absl::Status Run();
  void RequestStop() { stop_.store(true, std::memory_order_relaxed); }

  int64_t env_steps() const { return env_steps_; }
  int64_t episodes() const { return episodes_; }

 private:
  // An observation, as it goes into a row.
  struct Seen {
    absl::Span<const float> numbers;
    absl::Span<const uint8_t> images;
  };
  // What a forward reads and writes.
  struct Batch {
    std::vector<float> observations, actions, row_actions, log_probs, memory, next_memory;
    std::vector<uint8_t> images;
  };

  absl::Status StepOnce();
  // Actions for the environments of waiting_.
  absl::Status Act();
  // Appends what environment `env` did.
  absl::Status AppendStep(int env);
  // Ends the episode of an environment that failed.
  absl::Status AppendLoss(int env);
  // Appends an observation without action; returns the row's place in its unroll.
  absl::StatusOr<int64_t> AppendFinal(int env, const Seen& seen, uint32_t flags);
  // Closes the unroll if only its last row is missing.  `place`: of the last row.
  absl::Status CloseUnroll(int env, int64_t place);
  // What `env` shows now is what it is to act on next.
  void Observe(int env, bool begins);
  // Takes the policy to go on with, if there is one to take or to wait for.
  absl::Status ChangePolicy();
  absl::Status AwaitNextPolicy();
  // CANCELLED: it is the run's last, which nobody learns from.
  absl::Status GoOnWith(std::unique_ptr<Policy> policy);
  absl::Span<float> Observation(int env) {
    return absl::MakeSpan(observations_).subspan(env * observation_size_, observation_size_);
  }
  Seen Acted(int env) { return {Observation(env), frames_.newest(env)}; }
  absl::Span<const float> Row(absl::Span<const float> of_all, int env) const {
    return of_all.subspan(env * observation_size_, observation_size_);
  }
  void Gather();
  void Scatter();
  absl::Span<float> Memory(std::vector<float>& of_all, int64_t env) const {
    return absl::MakeSpan(of_all).subspan(env * state_size_, state_size_);
  }
  // Of a row in its unroll; -1: it is in none.
  int64_t PlaceInUnroll(uint64_t number) const {
    const auto row = static_cast<int64_t>(number);
    return row < unroll_.lead_rows ? -1 : (row - unroll_.lead_rows) % (unroll_.length + 1);
  }
  void CountEpisode(int env);
  void Use(std::unique_ptr<Policy> policy);

  VectorEnv& envs_;
  const RowPacker& packer_;
  RowWriter& writer_;
  PolicyFeed& feed_;
  RolloutMetrics& metrics_;
  const uint64_t seed_;
  const int64_t num_envs_;
  const int64_t observation_size_;
  const int64_t action_size_;
  const int64_t state_size_;  // of a policy's memory; 0: it has none
  const UnrollRule unroll_;

  std::unique_ptr<Policy> policy_;
  // Row i of these belongs to environment i.
  std::vector<float> observations_;  // [num_envs, observation_size], what the actions answer
  FrameStacks frames_;               // their images
  std::vector<float> actions_;       // [num_envs, action_size], for the environments
  std::vector<float> row_actions_;   // [num_envs, action_size], as drawn
  std::vector<float> log_probs_;     // [num_envs]
  std::vector<float> memory_;        // [num_envs, state_size], before the observations
  std::vector<float> next_memory_;   // [num_envs, state_size], after them
  std::vector<uint64_t> versions_;   // [num_envs], of the policies that drew the actions
  std::vector<uint8_t> open_;        // [num_envs], 1: the last row is of an episode under way
  std::vector<uint8_t> active_;      // [num_envs], 0: has made its unroll with this policy
  std::vector<int> waiting_;         // active environments that no action was given to
  Batch batch_;                      // scratch: rows of those that wait
  int64_t num_active_;
  int64_t requests_heard_ = 0;  // for unrolls of this policy, before the last one ended
  int64_t env_steps_ = 0;
  int64_t episodes_ = 0;
  std::atomic<bool> stop_{false};  // set by a signal or the last snapshot, read once per step
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROLLOUT_H_
