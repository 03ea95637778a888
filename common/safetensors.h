#ifndef TROUPE_COMMON_SAFETENSORS_H_
#define TROUPE_COMMON_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/experience.pb.h"

namespace troupe {

// The safetensors format (huggingface.co/docs/safetensors): a uint64 header size, a JSON header,
// then the tensors' bytes, little-endian and in C order.  Dtypes F32, F64, I32, I64 and U8.

// One named tensor.  `bytes` points into memory that somebody else owns, at any alignment.
struct TensorView {
  std::string name;
  proto::DType dtype = proto::FLOAT32;
  std::vector<int64_t> shape;  // empty: a scalar; an axis may be 0
  absl::string_view bytes;
};

// "'actor.head.bias' FLOAT32[12]", for messages.
std::string DescribeTensor(const TensorView& tensor);

// A parsed image; its tensors point into the bytes that were parsed.  Immutable, so thread-safe.
class Safetensors final {
 public:
  static constexpr int64_t kMaxHeaderBytes = int64_t{1} << 20;

  // Accepts hostile bytes: INVALID_ARGUMENT unless the header is at most 1 MiB of well-formed JSON
  // without a name twice, every size is the product of its shape, and the tensors cover the data
  // without gap or overlap.  `image` must outlive the result.
  static absl::StatusOr<Safetensors> Parse(absl::string_view image);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // INVALID_ARGUMENT names the tensor and both shapes or dtypes if it is not exactly that.
  absl::StatusOr<TensorView> Find(absl::string_view name, proto::DType dtype,
                                  const std::vector<int64_t>& shape) const;
  // INVALID_ARGUMENT names the key if it is not there.
  absl::StatusOr<std::string> Metadata(absl::string_view key) const;

 private:
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// An image with these tensors and strings, the same bytes for the same arguments; every tensor
// starts at a multiple of its element size.  INVALID_ARGUMENT: a name twice, a size that is not
// its shape's, or a header larger than 1 MiB.
absl::StatusOr<std::string> EncodeSafetensors(const std::vector<TensorView>& tensors,
                                              const std::map<std::string, std::string>& metadata);

}  // namespace troupe

#endif  // TROUPE_COMMON_SAFETENSORS_H_
