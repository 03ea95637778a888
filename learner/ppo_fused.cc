#include "learner/ppo_fused.h"

#include "absl/strings/str_cat.h"
#include "common/policy_head.h"
#include "common/recurrence.h"
#include "learner/fused/flat_network.h"
#include "learner/ppo_gradient.h"
#include "learner/ppo_networks.h"

namespace troupe {
namespace {

using torch::Tensor;

HiddenUnit UnitOf(const proto::Mlp& network) {
  switch (network.activation()) {
    case proto::TANH:
      return HiddenUnit::kTanh;
    case proto::ELU:
      return HiddenUnit::kElu;
    default:
      return HiddenUnit::kRelu;
  }
}

FlatNetwork FlatNetworkOf(const proto::Mlp& network, int64_t inputs, int64_t outputs) {
  return MakeFlatNetwork(1, inputs, {network.hidden_sizes().begin(), network.hidden_sizes().end()},
                         outputs);
}

const float* Floats(const Tensor& tensor) { return tensor.data_ptr<float>(); }

DescendedFloats FloatsOf(const LearnedNetwork& network) {
  const Adam& adam = network.adam;
  return {network.parameters.values().data_ptr<float>(), adam.m().data_ptr<float>(),
          adam.v().data_ptr<float>(), adam.steps()};
}

absl::Status Covers(const proto::Ppo& config, const PolicyMetadata& policy) {
  const auto refuse = [](absl::string_view what) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine of PPO does not compute ", what));
  };
  if (!HasClosedGradient(config)) return refuse("a KL penalty or an adaptive learning rate");
  if (HasMemory(policy.recurrence)) return refuse("recurrence");
  if (!policy.image_shape.empty()) return refuse("images");
  for (const proto::Mlp& network : {policy.network, config.critic()}) {
    if (network.layer_norm()) return refuse("layer_norm");
    if (network.dropout() > 0) return refuse("dropout");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FusedPpo>> FusedPpo::Create(const proto::Ppo& config,
                                                           const PolicyMetadata& policy,
                                                           const MakePpoEngine& make) {
  if (absl::Status status = Covers(config, policy); !status.ok()) return status;
  const proto::Mlp critic = PpoNetwork(config.critic(), /*has_images=*/false);
  absl::StatusOr<std::unique_ptr<PpoEngine>> engine =
      make({.config = config,
            .actor = FlatNetworkOf(policy.network, policy.observation_size, HeadSize(policy)),
            .critic = FlatNetworkOf(critic, policy.observation_size, 1),
            .actor_unit = UnitOf(policy.network),
            .critic_unit = UnitOf(critic),
            .num_choices = policy.num_choices});
  if (!engine.ok()) return engine.status();
  return std::make_unique<FusedPpo>(*std::move(engine));
}

absl::StatusOr<PpoProgress> FusedPpo::Improve(const PpoSteps& steps, const Tensor& order,
                                              int64_t minibatches, double learning_rate,
                                              const LearnedNetwork& actor,
                                              const LearnedNetwork& critic) {
  const Tensor a = steps.a.to(torch::kFloat32);
  DescendedFloats of_actor = FloatsOf(actor), of_critic = FloatsOf(critic);
  absl::Status status = engine_->Load(of_actor, of_critic);
  if (!status.ok()) return status;
  absl::StatusOr<PpoProgress> progress =
      engine_->Improve({.s = Floats(steps.s),
                        .a = Floats(a),
                        .log_mu = Floats(steps.log_mu),
                        .advantage = Floats(steps.advantage),
                        .target = Floats(steps.target),
                        .v_old = Floats(steps.v_old)},
                       {.rows = order.size(1),
                        .epochs = order.size(0),
                        .minibatches = minibatches,
                        .order = {order.data_ptr<int64_t>(), static_cast<size_t>(order.numel())}},
                       learning_rate);
  if (!progress.ok()) return progress;
  if (status = engine_->Store(of_actor, of_critic); !status.ok()) return status;
  actor.adam.set_steps(of_actor.steps);
  critic.adam.set_steps(of_critic.steps);
  return progress;
}

}  // namespace troupe
