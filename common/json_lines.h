#ifndef TROUPE_COMMON_JSON_LINES_H_
#define TROUPE_COMMON_JSON_LINES_H_

#include <string>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

namespace troupe {

// Appends `line` to the file of JSON lines `path`, made if it is not there.  The line is there
// wholly or not at all: readers never see half of one, and a full disk leaves none.  Numbers that
// are not finite become null.  Errors name the path.  REQUIRES: one writer a file.
absl::Status AppendJsonLine(const std::string& path, const nlohmann::ordered_json& line);

}  // namespace troupe

#endif  // TROUPE_COMMON_JSON_LINES_H_
