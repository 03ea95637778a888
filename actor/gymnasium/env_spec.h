#ifndef TROUPE_ACTOR_GYMNASIUM_ENV_SPEC_H_
#define TROUPE_ACTOR_GYMNASIUM_ENV_SPEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "actor/env.h"

namespace troupe {

// What env_child.py says of its environments.  INVALID_ARGUMENT: it is not such a text.
absl::StatusOr<EnvSpec> ParseEnvSpec(const std::string& id, const std::string& json);

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_ENV_SPEC_H_
