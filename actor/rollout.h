#ifndef TROUPE_ACTOR_ROLLOUT_H_
#define TROUPE_ACTOR_ROLLOUT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
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

// The actor's loop: one batched forward, one step of every environment, one row each.
//
// Owned and run by one thread; only RequestStop may come from another.
class Rollout final {
 public:
  // All of them outlive the rollout.  `seed` differs between any two incarnations of actors.
  Rollout(VectorEnv& envs, const RowPacker& packer, RowWriter& writer, PolicyFeed& feed,
          RolloutMetrics& metrics, uint64_t seed);

  // Steps until RequestStop or until the writer is stopped (both OK), or something fails:
  // INTERNAL names an environment that gave numbers that are not finite.
  absl::Status Run();
  void RequestStop() { stop_.store(true, std::memory_order_relaxed); }

  int64_t env_steps() const { return env_steps_; }
  int64_t episodes() const { return episodes_; }

 private:
  absl::Status StepOnce();
  absl::Status AppendRows();
  absl::Status AppendRow(int64_t env);
  void CountEpisode(int64_t env);
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

  std::unique_ptr<Policy> policy_;
  std::vector<float> observations_;  // [num_envs, observation_size], what the actions answer
  std::vector<float> actions_;       // [num_envs, action_size]
  int64_t env_steps_ = 0;
  int64_t episodes_ = 0;
  std::atomic<bool> stop_{false};  // set by a signal or the last snapshot, read once per step
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROLLOUT_H_
