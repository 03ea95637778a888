#ifndef TROUPE_LEARNER_COLUMNS_H_
#define TROUPE_LEARNER_COLUMNS_H_

#include <torch/torch.h>

#include "absl/status/statusor.h"
#include "learner/row_columns.h"
#include "proto/experience.pb.h"

namespace troupe {

// Rows are read as words of this size. Unit: bytes.
inline constexpr int64_t kWordBytes = sizeof(float);

// ActionScaling as tensors, [action_size] each.
struct ActionRange {
  torch::Tensor center, scale;
};
// INVALID_ARGUMENT names the element without finite bounds.
absl::StatusOr<ActionRange> RangeOf(const proto::Column& action, int64_t action_size,
                                    const torch::TensorOptions& tensors);

}  // namespace troupe

#endif  // TROUPE_LEARNER_COLUMNS_H_
