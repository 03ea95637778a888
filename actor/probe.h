#ifndef TROUPE_ACTOR_PROBE_H_
#define TROUPE_ACTOR_PROBE_H_

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/config.pb.h"

namespace troupe {

struct ProbeOptions {
  proto::Environment environment;
  std::string asset_dir;
  // One action a line: numbers separated by spaces, or a JSON array.  Blank lines are skipped.
  std::string actions_path;
  // The first episode starts from `state` (see Env::ResetToState), or from `seed`.
  std::optional<std::vector<double>> state = std::nullopt;
  uint64_t seed = 0;
  // When an episode ends before the actions do: go on with the next seed, or stop.
  bool continue_after_end = false;
  std::ostream* output = nullptr;
};

// Steps one environment through a file of actions and prints JSON lines at full precision, so that
// it can be held against another implementation: {"observation":[...]} for each reset, and
// {"observation":[...],"reward":x,"terminated":b,"truncated":b} for each step.  Numbers that are
// not finite are written NaN, Infinity and -Infinity, as Python's json does.
//
// INVALID_ARGUMENT and NOT_FOUND name what is wrong with the options, bad lines of the file
// included.
absl::Status RunProbe(const ProbeOptions& options);

}  // namespace troupe

#endif  // TROUPE_ACTOR_PROBE_H_
