#include "learner/row_columns.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace troupe {

absl::StatusOr<ColumnLayout> FindColumn(const Layout& layout, absl::string_view name,
                                        proto::DType dtype) {
  absl::StatusOr<ColumnLayout> column = layout.Find(name);
  if (!column.ok()) return absl::InvalidArgumentError(column.status().message());
  if (column->dtype != dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat("column '", name, "' is ", proto::DType_Name(column->dtype),
                     ", the learner wants ", proto::DType_Name(dtype)));
  }
  return column;
}

absl::StatusOr<ColumnLayout> FindScalar(const Layout& layout, absl::string_view name,
                                        proto::DType dtype) {
  absl::StatusOr<ColumnLayout> column = FindColumn(layout, name, dtype);
  if (column.ok() && column->num_elements != 1) {
    return absl::InvalidArgumentError(absl::StrCat("column '", name, "' is no scalar"));
  }
  return column;
}

ColumnLayout VectorOf(const ObservationColumns& observations) {
  ColumnLayout vector;
  vector.name = std::string(kObservation);
  vector.shape = {observations.num_elements};
  vector.num_elements = observations.num_elements;
  vector.offset_bytes = observations.offset_bytes;
  vector.size_bytes = observations.num_elements * ElementBytes(proto::FLOAT32);
  return vector;
}

absl::Status CheckHasImage(const ObservationColumns& observations, bool has_encoder) {
  if (!has_encoder || observations.image.num_elements > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the configuration has an encoder of images, and rows have no column of observations that "
      "is an image: UINT8 of height, width and channels");
}

absl::StatusOr<ColumnLayout> FindRecurrentState(const Layout& layout, int64_t size) {
  absl::StatusOr<ColumnLayout> column = FindColumn(layout, kRecurrentState, proto::FLOAT32);
  if (column.ok() && column->num_elements != size) {
    return absl::InvalidArgumentError(absl::StrCat("column '", kRecurrentState, "' has ",
                                                   column->num_elements,
                                                   " numbers; the policy's memory has ", size));
  }
  return column;
}

const proto::Column* FindProto(const Layout& layout, absl::string_view name) {
  for (const proto::Column& column : layout.proto().columns()) {
    if (column.name() == name) return &column;
  }
  return nullptr;
}

absl::StatusOr<ActionScaling> ScalingOf(const proto::Column& action, int64_t action_size) {
  if (action.low_size() != action_size || action.high_size() != action_size) {
    return absl::InvalidArgumentError("column 'action' has no bounds; the policy needs them");
  }
  ActionScaling scaling;
  for (int64_t i = 0; i < action_size; ++i) {
    const double low = action.low(i), high = action.high(i);
    if (!std::isfinite(low) || !std::isfinite(high) || low >= high) {
      return absl::InvalidArgumentError(absl::StrCat("column 'action': bounds of element ", i,
                                                     " are [", low, ", ", high,
                                                     "]; the policy needs finite ones"));
    }
    scaling.center.push_back((low + high) / 2);
    scaling.scale.push_back(2 / (high - low));
  }
  return scaling;
}

}  // namespace troupe
