#include "learner/sac_policy.h"

#include "common/mlp.h"
#include "common/recurrence.h"

namespace troupe {

ImageEncoderShape SacEncoder(const proto::Sac& config, const TransitionReader& reader) {
  const std::vector<int64_t>& image = reader.image().shape;
  if (image.empty()) return {};
  return {.spec = WithEncoderDefaults(config.encoder(), /*for_sac=*/true),
          .height = image[0],
          .width = image[1],
          .channels = image[2],
          .layer_norm = true};
}

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
  metadata.image_shape = reader.image().shape;
  metadata.encoder = SacEncoder(config, reader).spec;
  metadata.log_std_min = config.log_std_min();
  metadata.log_std_max = config.log_std_max();
  return metadata;
}

}  // namespace troupe
