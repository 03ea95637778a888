#include "learner/columns.h"

namespace troupe {

absl::StatusOr<ActionRange> RangeOf(const proto::Column& action, int64_t action_size,
                                    const torch::TensorOptions& tensors) {
  const absl::StatusOr<ActionScaling> scaling = ScalingOf(action, action_size);
  if (!scaling.ok()) return scaling.status();
  return ActionRange{torch::tensor(scaling->center, torch::kFloat64).to(tensors),
                     torch::tensor(scaling->scale, torch::kFloat64).to(tensors)};
}

}  // namespace troupe
