#ifndef TROUPE_ACTOR_ENVS_TASK_H_
#define TROUPE_ACTOR_ENVS_TASK_H_

#include "absl/strings/string_view.h"

namespace troupe {

// What every task table says of an id.
struct Task {
  absl::string_view id;
  // Truncation after this many steps, as Gymnasium registers the id.
  int max_episode_steps = 0;
  // Gymnasium's keyword options of the id and their defaults: a proto::Environment in text format.
  // A keyword that is not here is one that the id does not have.
  const char* defaults = "";
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_TASK_H_
