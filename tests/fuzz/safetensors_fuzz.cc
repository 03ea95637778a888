// Bytes as Safetensors::Parse gets them from peers and files: what is accepted lies within the
// image, has the size of its shape, and comes back the same from EncodeSafetensors.
#include <functional>

#include "common/layout.h"
#include "common/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace troupe {
namespace {

void CheckTensor(const TensorView& tensor, absl::string_view image) {
  int64_t size_bytes = ElementBytes(tensor.dtype);
  for (const int64_t axis : tensor.shape) {
    Require(axis >= 0, "an axis is negative");
    Require(!__builtin_mul_overflow(size_bytes, axis, &size_bytes) || tensor.bytes.empty(),
            "a shape overflows");
  }
  if (!tensor.bytes.empty()) {
    Require(static_cast<int64_t>(tensor.bytes.size()) == size_bytes, "a size is not its shape's");
  }
  const std::less_equal<const char*> in_order;
  Require(in_order(image.data() + 8, tensor.bytes.data()) &&
              in_order(tensor.bytes.data() + tensor.bytes.size(), image.data() + image.size()),
          "a tensor lies outside the image");
}

void CheckSame(const Safetensors& a, const Safetensors& b) {
  Require(a.metadata() == b.metadata(), "metadata changed in a round trip");
  Require(a.tensors().size() == b.tensors().size(), "tensors were lost in a round trip");
  for (const auto& [name, tensor] : a.tensors()) {
    const absl::StatusOr<TensorView> found = b.Find(name, tensor.dtype, tensor.shape);
    Require(found.ok() && found->bytes == tensor.bytes, "a tensor changed in a round trip");
  }
}

void TestOne(absl::string_view input) {
  const std::string image = SafetensorsImage(input);
  const absl::StatusOr<Safetensors> parsed = Safetensors::Parse(image);
  if (!parsed.ok()) {
    Require(absl::IsInvalidArgument(parsed.status()), "another code than INVALID_ARGUMENT");
    return;
  }
  std::vector<TensorView> tensors;
  for (const auto& [name, tensor] : parsed->tensors()) {
    CheckTensor(tensor, image);
    tensors.push_back(tensor);
  }
  const absl::StatusOr<std::string> encoded = EncodeSafetensors(tensors, parsed->metadata());
  // A header near its limit may be longer with the spaces of our own writing.
  if (!encoded.ok() && image.size() > Safetensors::kMaxHeaderBytes / 2) return;
  Require(encoded.ok(), encoded.status());
  const absl::StatusOr<Safetensors> again = Safetensors::Parse(*encoded);
  Require(again.ok(), again.status());
  CheckSame(*parsed, *again);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
