#ifndef TROUPE_REPLAY_SERVER_ROW_RUN_H_
#define TROUPE_REPLAY_SERVER_ROW_RUN_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace troupe {

// Consecutive packed rows of one stream, as they came.
struct RowRunView {
  uint64_t stream = 0;
  uint64_t first_row = 0;
  absl::string_view rows;
};

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_ROW_RUN_H_
