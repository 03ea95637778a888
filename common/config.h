#ifndef TROUPE_COMMON_CONFIG_H_
#define TROUPE_COMMON_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/config.pb.h"

namespace troupe {

// The one way from a file and `--set path=value` words to a configuration that can be used as it
// is: every value is in its range and every cross-field rule holds.  Ranges, units and defaults
// come from proto/config.proto.  All functions are pure, but for reading `path`.

// Reads `path` (protobuf text format; an empty path is an empty file) and lays `sets` on top, in
// order.  A set is "learner.sac.gamma=0.98", "tables[0].capacity_rows=5000", "tables.name=x" (the
// only element, made if there is none), "shards+=host:port" (append), "shards=a:1,b:2" (replace).
// A configuration without tables gets one with the defaults, one without algorithm gets SAC.
//
// NOT_FOUND or PERMISSION_DENIED name the file.  INVALID_ARGUMENT holds one line per fault, all
// faults at once.
absl::StatusOr<proto::Config> LoadConfig(const std::string& path,
                                         absl::Span<const std::string> sets);

// The same for text that `origin` names in messages.
absl::StatusOr<proto::Config> ParseConfig(absl::string_view text, absl::string_view origin,
                                          absl::Span<const std::string> sets);

// Windows that the learner asks for in one request.  PPO takes them as they come.
int64_t SampledAtOnce(const proto::Config& config);

// The table with what follows from the rest of the configuration filled in: for the learner's
// table what its algorithm wants of windows, selector and rate limiter; for every table the slack.
// NOT_FOUND lists the tables there are.
absl::StatusOr<proto::Table> EffectiveTable(const proto::Config& config, absl::string_view name);

// Text that LoadConfig reads back to the same configuration.
std::string PrintConfig(const proto::Config& config);

}  // namespace troupe

#endif  // TROUPE_COMMON_CONFIG_H_
