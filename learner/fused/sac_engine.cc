#include "learner/fused/sac_engine.h"

#include "absl/strings/str_cat.h"
#include "learner/fused/flat_network.h"

namespace troupe {

FlatNetwork ActorNetwork(const SacModel& model) {
  return MakeFlatNetwork(1, model.observation_size, model.actor_hidden, 2 * model.action_size,
                         model.actor_layer_norm);
}

FlatNetwork CriticNetwork(const SacModel& model) {
  return MakeFlatNetwork(model.num_critics, model.observation_size + model.action_size,
                         model.critic_hidden, 1, model.critic_layer_norm);
}

absl::Status CheckTwinCritics(const SacModel& model) {
  const char* what = nullptr;
  if (model.num_critics != 2) what = "num_critics other than 2";
  if (model.target_subset != model.num_critics) what = "min_subset below num_critics";
  if (model.actor_hidden.size() != model.critic_hidden.size()) {
    what = "an actor with other than the critics' number of layers";
  }
  if (what == nullptr) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("this fused engine does not compute ", what));
}

}  // namespace troupe
