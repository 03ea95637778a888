#include "learner/ppo_fused.h"

#include "absl/memory/memory.h"
#include "common/recurrence.h"
#include "learner/fused/flat_network.h"
#include "learner/ppo_networks.h"

namespace troupe {
namespace {

using torch::Tensor;

bool IsPlain(const proto::Mlp& network) { return !network.layer_norm() && network.dropout() == 0; }

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

std::unique_ptr<FusedPpo> FusedPpo::Make(const proto::Ppo& config, const PolicyMetadata& policy) {
  const proto::Mlp& actor = policy.network;
  const proto::Mlp critic = PpoNetwork(config.critic());
  if (!HasClosedGradient(config) || HasMemory(policy.recurrence) || !IsPlain(actor) ||
      !IsPlain(critic)) {
    return nullptr;
  }
  return absl::WrapUnique(new FusedPpo(cpu::PpoEngine(
      config, FlatNetworkOf(actor, policy.observation_size, policy.action_size), UnitOf(actor),
      FlatNetworkOf(critic, policy.observation_size, 1), UnitOf(critic))));
}

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
