#ifndef TROUPE_COMMON_NEAREST_H_
#define TROUPE_COMMON_NEAREST_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace troupe {

// The candidate with the fewest edits (insert, delete, replace, swap neighbours) from `name`;
// empty if there are no candidates.  Of equals, the first.
std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace troupe

#endif  // TROUPE_COMMON_NEAREST_H_
