#ifndef TROUPE_COMMON_LOGGING_H_
#define TROUPE_COMMON_LOGGING_H_

#include <string>

#include "absl/status/status.h"

namespace troupe {

// Sends spdlog's default logger to stderr: a line of text, or of JSON
// {"time","level","program","message"}, per message.  INVALID_ARGUMENT lists the levels.
absl::Status SetUpLogging(const std::string& program, const std::string& level, bool json);

}  // namespace troupe

#endif  // TROUPE_COMMON_LOGGING_H_
