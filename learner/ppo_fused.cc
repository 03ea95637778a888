#include "learner/ppo_fused.h"

#include "absl/strings/str_cat.h"
#include "common/recurrence.h"
#include "learner/fused/flat_network.h"
#include "learner/ppo_networks.h"

namespace troupe {
namespace {

using torch::Tensor;

cpu::Unit UnitOf(const proto::Mlp& network) {
  switch (network.activation()) {
    case proto::TANH:
      return cpu::Unit::kTanh;
    case proto::ELU:
      return cpu::Unit::kElu;
    default:
      return cpu::Unit::kRelu;
  }
}

FlatNetwork FlatNetworkOf(const proto::Mlp& network, int64_t inputs, int64_t outputs) {
  return MakeFlatNetwork(1, inputs, {network.hidden_sizes().begin(), network.hidden_sizes().end()},
                         outputs);
}

const float* Floats(const Tensor& tensor) { return tensor.data_ptr<float>(); }

cpu::DescendedFloats FloatsOf(const FlatParameters& parameters, const Adam& adam) {
  return {parameters.values().data_ptr<float>(), adam.m().data_ptr<float>(),
          adam.v().data_ptr<float>(), adam.steps()};
}

}  // namespace

absl::Status FusedPpo::Covers(const proto::Ppo& config, const PolicyMetadata& policy) {
  const auto refuse = [](absl::string_view what) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine of PPO does not compute ", what));
  };
  if (policy.distribution != Distribution::kGaussian) return refuse("discrete actions");
  if (!HasClosedGradient(config)) return refuse("a KL penalty or an adaptive learning rate");
  if (HasMemory(policy.recurrence)) return refuse("recurrence");
  for (const proto::Mlp& network : {policy.network, config.critic()}) {
    if (network.layer_norm()) return refuse("layer_norm");
    if (network.dropout() > 0) return refuse("dropout");
  }
  return absl::OkStatus();
}

FusedPpo::FusedPpo(const proto::Ppo& config, const PolicyMetadata& policy)
    : engine_(config, FlatNetworkOf(policy.network, policy.observation_size, policy.action_size),
              UnitOf(policy.network),
              FlatNetworkOf(PpoNetwork(config.critic()), policy.observation_size, 1),
              UnitOf(PpoNetwork(config.critic()))) {}

void FusedPpo::Load(const FlatParameters& actor, const FlatParameters& critic,
                    const Adam& actor_adam, const Adam& critic_adam) {
  engine_.Load(FloatsOf(actor, actor_adam), FloatsOf(critic, critic_adam));
}

void FusedPpo::Store(FlatParameters& actor, FlatParameters& critic, Adam& actor_adam,
                     Adam& critic_adam) const {
  cpu::DescendedFloats of_actor = FloatsOf(actor, actor_adam),
                       of_critic = FloatsOf(critic, critic_adam);
  engine_.Store(of_actor, of_critic);
  actor_adam.set_steps(of_actor.steps);
  critic_adam.set_steps(of_critic.steps);
}

const PpoLoss* FusedPpo::Step(const PpoSteps& steps, const Tensor& rows, double learning_rate) {
  return engine_.Step({.s = Floats(steps.s),
                       .a = Floats(steps.a),
                       .log_mu = Floats(steps.log_mu),
                       .advantage = Floats(steps.advantage),
                       .target = Floats(steps.target),
                       .v_old = Floats(steps.v_old)},
                      {rows.data_ptr<int64_t>(), static_cast<size_t>(rows.size(0))}, learning_rate);
}

}  // namespace troupe
