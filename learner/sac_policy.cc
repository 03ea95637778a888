#include "learner/sac_policy.h"

#include "common/mlp.h"
#include "common/recurrence.h"

namespace troupe {

PolicyMetadata SacPolicyMetadata(const proto::Sac& config, const TransitionReader& reader,
                                 const PolicyStamp& stamp, int64_t updates) {
  const proto::Column& action = reader.action();
  PolicyMetadata metadata;
  metadata.run = stamp.run;
  metadata.version = stamp.version;
  metadata.env_steps = stamp.env_steps;
  metadata.updates = updates;
  metadata.warmup = stamp.warmup;
  metadata.final_one = stamp.final_one;
  metadata.observation_size = reader.observation_size();
  metadata.action_size = reader.action_size();
  metadata.action_low.assign(action.low().begin(), action.low().end());
  metadata.action_high.assign(action.high().begin(), action.high().end());
  metadata.network = WithHiddenSizes(config.actor());
  metadata.recurrence = NetworkOf(config.recurrence());
  metadata.log_std_min = config.log_std_min();
  metadata.log_std_max = config.log_std_max();
  return metadata;
}

}  // namespace troupe
