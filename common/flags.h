#ifndef TROUPE_COMMON_FLAGS_H_
#define TROUPE_COMMON_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe {

// What the command line holds beside the flags themselves.
struct CommandLine {
  std::vector<std::string> sets;  // those of TROUPE_SET, then every --set, in order
  bool help = false;
  bool version = false;
};

// Sets the Abseil flags of this binary from `args` (without the program's name): --name=value,
// --name value, --bool, --nobool.  What `args` does not set, the environment may: TROUPE_NAME is
// --name, and TROUPE_SET holds settings with white space between them; an empty variable sets
// nothing.  INVALID_ARGUMENT holds one line per fault, all at once: unknown flags with the nearest
// known one, bad values, words that are no flags.
absl::StatusOr<CommandLine> ParseFlags(absl::Span<char* const> args);

// The text of --help: `about`, then every flag with its default.
std::string FlagsHelp(absl::string_view name, absl::string_view about);

}  // namespace troupe

#endif  // TROUPE_COMMON_FLAGS_H_
