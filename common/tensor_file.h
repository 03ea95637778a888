#ifndef TROUPE_COMMON_TENSOR_FILE_H_
#define TROUPE_COMMON_TENSOR_FILE_H_

#include <torch/torch.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors.h"

namespace troupe {

// A safetensors image in the making.  Not thread-safe.
class TensorFile final {
 public:
  // Takes a copy in CPU memory.
  void Add(const std::string& name, const torch::Tensor& tensor);
  void SetMetadata(const std::string& key, std::string value) { metadata_[key] = std::move(value); }

  absl::StatusOr<std::string> Encode() const;

 private:
  std::vector<std::pair<std::string, torch::Tensor>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A copy in CPU memory of a tensor with exactly this dtype and shape.  INVALID_ARGUMENT names the
// tensor and what differs, or the first element that is not finite.
absl::StatusOr<torch::Tensor> ReadTensor(const Safetensors& file, absl::string_view name,
                                         torch::Dtype dtype, const std::vector<int64_t>& shape);

}  // namespace troupe

#endif  // TROUPE_COMMON_TENSOR_FILE_H_
