#ifndef TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_
#define TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "actor/gymnasium/env_child.h"

namespace troupe {

// Sleeps until a child has said something, the deadline of one is over, or `until`, and lets those
// turn whose turn it is.
void WaitForChildren(absl::Span<EnvChild* const> children, absl::Time until);

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_WAIT_FOR_CHILDREN_H_
