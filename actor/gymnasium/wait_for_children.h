#ifndef TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_
#define TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "actor/gymnasium/env_child.h"

namespace troupe {

// Sleeps until a child has said something, the deadline of one is over, or `until`.
void WaitForChildren(const std::vector<std::unique_ptr<EnvChild>>& children, absl::Time until);

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_
