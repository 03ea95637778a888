// Layouts as actors name them (serialized proto::Layout): in one that is accepted every column lies
// aligned, behind the one before, within the stride; and it is the same after a trip over the wire.
#include "common/layout.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

void CheckColumns(const Layout& layout) {
  int64_t end = sizeof(RowHeader);
  for (const ColumnLayout& column : layout.columns()) {
    const int64_t element_bytes = ElementBytes(column.dtype);
    int64_t num_elements = 1;
    for (const int64_t axis : column.shape) num_elements *= axis;
    Require(element_bytes > 0 && num_elements >= 1 && num_elements == column.num_elements,
            "a column has another number of elements than its shape");
    Require(column.size_bytes == num_elements * element_bytes, "a column has another size");
    Require(column.offset_bytes >= end && column.offset_bytes % element_bytes == 0,
            "a column lies in another or is not aligned");
    end = column.offset_bytes + column.size_bytes;
    const absl::StatusOr<ColumnLayout> found = layout.Find(column.name);
    Require(found.ok() && found->offset_bytes == column.offset_bytes, "a column is not found");
  }
  Require(layout.stride_bytes() >= end && layout.stride_bytes() % 8 == 0, "the stride is wrong");
}

void TestOne(absl::string_view input) {
  proto::Layout message;
  if (!message.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  const absl::StatusOr<Layout> layout = Layout::FromProto(message);
  if (!layout.ok()) {
    Require(absl::IsInvalidArgument(layout.status()), "another code than INVALID_ARGUMENT");
    return;
  }
  CheckColumns(*layout);
  proto::Layout copy;
  Require(copy.ParseFromString(layout->proto().SerializeAsString()), "it cannot be read again");
  const absl::StatusOr<Layout> again = Layout::FromProto(copy);
  Require(again.ok() && again->stride_bytes() == layout->stride_bytes() &&
              layout->CheckSame(*again).ok(),
          "it is another layout after a trip over the wire");
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
