#include "common/layout.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace troupe {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are packed little-endian");

constexpr int64_t kMaxAxis = int64_t{1} << 24;
constexpr int64_t kMaxRowBytes = int64_t{1} << 28;
constexpr int kMaxColumns = 256;
constexpr int kMaxAxes = 8;

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

absl::Status Invalid(const proto::Column& column, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("column '", column.name(), "': ", why));
}

absl::Status CheckBounds(const proto::Column& column, int64_t num_elements) {
  if (column.low_size() != column.high_size()) {
    return Invalid(column, absl::StrCat(column.low_size(), " lower bounds but ", column.high_size(),
                                        " upper bounds"));
  }
  if (column.low_size() != 0 && column.low_size() != num_elements) {
    return Invalid(column,
                   absl::StrCat(column.low_size(), " bounds for ", num_elements, " elements"));
  }
  for (int i = 0; i < column.low_size(); ++i) {
    if (!(column.low(i) <= column.high(i))) {
      return Invalid(column, absl::StrCat("bounds of element ", i, " are [", column.low(i), ", ",
                                          column.high(i), "]"));
    }
  }
  return absl::OkStatus();
}

// Everything of a column but its offset, all numbers checked.
absl::StatusOr<ColumnLayout> ParseColumn(const proto::Column& column) {
  if (column.name().empty() || column.name().size() > 64) {
    return Invalid(column, "a name has 1 to 64 bytes");
  }
  ColumnLayout result{.name = column.name(), .dtype = column.dtype(), .num_elements = 1};
  const int64_t element_bytes = ElementBytes(column.dtype());
  if (element_bytes == 0) return Invalid(column, absl::StrCat("unknown dtype ", column.dtype()));
  if (column.shape_size() > kMaxAxes) {
    return Invalid(column, absl::StrCat(column.shape_size(), " axes, at most ", kMaxAxes));
  }
  for (const uint32_t axis : column.shape()) {
    if (axis < 1 || axis > kMaxAxis) {
      return Invalid(column, absl::StrCat("axis of ", axis, ", must be 1 to ", kMaxAxis));
    }
    result.num_elements *= axis;
    if (result.num_elements * element_bytes > kMaxRowBytes) {
      return Invalid(column, absl::StrCat("larger than ", kMaxRowBytes, " bytes"));
    }
    result.shape.push_back(axis);
  }
  result.size_bytes = result.num_elements * element_bytes;
  result.compression = column.compression();
  if (!proto::Compression_IsValid(column.compression())) {
    return Invalid(column, absl::StrCat("unknown compression ", column.compression()));
  }
  if (absl::Status status = CheckBounds(column, result.num_elements); !status.ok()) return status;
  return result;
}

std::string Describe(const ColumnLayout& column) {
  return absl::StrCat("'", column.name, "' ", proto::DType_Name(column.dtype), "[",
                      absl::StrJoin(column.shape, ","), "]",
                      column.compression == proto::COMPRESSION_NONE
                          ? ""
                          : absl::StrCat(" ", proto::Compression_Name(column.compression)));
}

}  // namespace

int64_t ElementBytes(proto::DType dtype) {
  switch (dtype) {
    case proto::FLOAT32:
    case proto::INT32:
      return 4;
    case proto::FLOAT64:
    case proto::INT64:
      return 8;
    case proto::UINT8:
      return 1;
    default:
      return 0;
  }
}

absl::StatusOr<Layout> Layout::FromProto(const proto::Layout& layout) {
  if (layout.columns_size() < 1 || layout.columns_size() > kMaxColumns) {
    return absl::InvalidArgumentError(absl::StrCat("a layout of ", layout.columns_size(),
                                                   " columns, must be 1 to ", kMaxColumns));
  }
  Layout result;
  result.proto_ = layout;
  int64_t offset = sizeof(RowHeader);
  for (const proto::Column& column : layout.columns()) {
    absl::StatusOr<ColumnLayout> parsed = ParseColumn(column);
    if (!parsed.ok()) return parsed.status();
    if (result.Find(parsed->name).ok()) return Invalid(column, "there twice");
    parsed->offset_bytes = RoundUp(offset, ElementBytes(parsed->dtype));
    offset = parsed->offset_bytes + parsed->size_bytes;
    if (offset > kMaxRowBytes) {
      return Invalid(column, absl::StrCat("ends a row of more than ", kMaxRowBytes, " bytes"));
    }
    result.columns_.push_back(*std::move(parsed));
  }
  result.stride_bytes_ = RoundUp(offset, 8);
  return result;
}

bool Layout::has_compressed_columns() const {
  return std::any_of(columns_.begin(), columns_.end(), [](const ColumnLayout& column) {
    return column.compression != proto::COMPRESSION_NONE;
  });
}

absl::StatusOr<ColumnLayout> Layout::Find(absl::string_view name) const {
  for (const ColumnLayout& column : columns_) {
    if (column.name == name) return column;
  }
  return absl::NotFoundError(
      absl::StrCat("no column '", name, "'; there are: ",
                   absl::StrJoin(columns_, ", ", [](std::string* out, const ColumnLayout& column) {
                     absl::StrAppend(out, column.name);
                   })));
}

absl::StatusOr<ObservationColumns> Layout::Observations() const {
  ObservationColumns result;
  for (const ColumnLayout& column : columns_) {
    if (column.name != kObservation && !absl::StartsWith(column.name, kObservationPrefix)) continue;
    if (column.dtype == proto::UINT8 && column.shape.size() == 3) {
      if (result.image.num_elements > 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "column '", column.name, "' is a second image, after '", result.image.name, "'"));
      }
      result.image = column;
      continue;
    }
    if (column.dtype != proto::FLOAT32) {
      return absl::InvalidArgumentError(
          absl::StrCat("column ", Describe(column), " is neither FLOAT32 nor an image"));
    }
    if (result.num_elements == 0) result.offset_bytes = column.offset_bytes;
    const int64_t end = result.offset_bytes + result.num_elements * ElementBytes(proto::FLOAT32);
    if (column.offset_bytes != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          "column '", column.name, "' does not lie behind the other columns of observations"));
    }
    result.num_elements += column.num_elements;
  }
  if (result.num_elements == 0 && result.image.num_elements == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("no column '", kObservation, "' or '", kObservationPrefix, "NAME'"));
  }
  return result;
}

absl::Status Layout::CheckSame(const Layout& other) const {
  if (columns_.size() != other.columns_.size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "layout has ", other.columns_.size(), " columns where ", columns_.size(), " are stored"));
  }
  for (size_t i = 0; i < columns_.size(); ++i) {
    const std::string mine = Describe(columns_[i]);
    const std::string theirs = Describe(other.columns_[i]);
    if (mine != theirs) {
      return absl::FailedPreconditionError(absl::StrCat("layout differs in column ", i, ": ",
                                                        theirs, " where ", mine, " is stored"));
    }
  }
  return absl::OkStatus();
}

RowHeader ReadRowHeader(const void* row) {
  RowHeader header;
  std::memcpy(&header, row, sizeof(header));
  return header;
}

void WriteRowHeader(const RowHeader& header, void* row) {
  std::memcpy(row, &header, sizeof(header));
}

}  // namespace troupe
