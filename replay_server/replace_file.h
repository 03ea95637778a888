#ifndef TROUPE_REPLAY_SERVER_REPLACE_FILE_H_
#define TROUPE_REPLAY_SERVER_REPLACE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe {

// Gives the file `path` these parts, one after another, for content: whole or, on an error, which
// names the path, not at all.  `synced`: also across a loss of power.
absl::Status ReplaceFile(const std::string& path, absl::Span<const absl::string_view> parts,
                         bool synced);

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_REPLACE_FILE_H_
