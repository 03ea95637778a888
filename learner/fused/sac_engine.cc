#include "learner/fused/sac_engine.h"

#include "learner/fused/flat_network.h"

namespace troupe {

FlatNetwork ActorNetwork(const SacModel& model) {
  return MakeFlatNetwork(1, model.observation_size, model.actor_hidden, 2 * model.action_size);
}

FlatNetwork CriticNetwork(const SacModel& model) {
  return MakeFlatNetwork(2, model.observation_size + model.action_size, model.critic_hidden, 1);
}

}  // namespace troupe
