#ifndef TROUPE_DEPLOY_OPERATOR_DRAIN_H_
#define TROUPE_DEPLOY_OPERATOR_DRAIN_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/program.h"

namespace troupe {

struct DrainOptions {
  std::string shard;  // its number or address in the configuration
  bool undo = false;
  absl::Duration patience = absl::Seconds(60);
};

// Turns the shard's writers away and waits until all that they have made is acked: then the shard
// can be stopped without loss.  DEADLINE_EXCEEDED: some have not come to an end; the shard goes on
// draining.  With `undo` it takes writers again.
absl::Status RunDrain(const Program& program, const DrainOptions& options);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_DRAIN_H_
