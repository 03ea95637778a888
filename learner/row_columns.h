#ifndef TROUPE_LEARNER_ROW_COLUMNS_H_
#define TROUPE_LEARNER_ROW_COLUMNS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/layout.h"
#include "proto/experience.pb.h"

namespace troupe {

// INVALID_ARGUMENT names the column that is missing or has another type.
absl::StatusOr<ColumnLayout> FindColumn(const Layout& layout, absl::string_view name,
                                        proto::DType dtype);
// The same for a column of one element.
absl::StatusOr<ColumnLayout> FindScalar(const Layout& layout, absl::string_view name,
                                        proto::DType dtype);
// Those of observations that are FLOAT32, as one column, which has no elements if there are none.
ColumnLayout VectorOf(const ObservationColumns& observations);
// INVALID_ARGUMENT unless rows have an image where the configuration speaks of its encoder.
absl::Status CheckHasImage(const ObservationColumns& observations, bool has_encoder);
// The column of a policy's memory, of `size` numbers.
absl::StatusOr<ColumnLayout> FindRecurrentState(const Layout& layout, int64_t size);
// nullptr if there is none.
const proto::Column* FindProto(const Layout& layout, absl::string_view name);

// How actions in native units become ones in (-1, 1): (a - center) * scale, element by element.
struct ActionScaling {
  std::vector<double> center, scale;
};
// INVALID_ARGUMENT names the element without finite bounds.
absl::StatusOr<ActionScaling> ScalingOf(const proto::Column& action, int64_t action_size);

}  // namespace troupe

#endif  // TROUPE_LEARNER_ROW_COLUMNS_H_
