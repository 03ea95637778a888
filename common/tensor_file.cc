#include "common/tensor_file.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

proto::DType WireDType(torch::Dtype dtype) {
  switch (dtype) {
    case torch::kFloat32:
      return proto::FLOAT32;
    case torch::kFloat64:
      return proto::FLOAT64;
    case torch::kInt32:
      return proto::INT32;
    case torch::kInt64:
      return proto::INT64;
    case torch::kUInt8:
      return proto::UINT8;
    default:
      return proto::DTYPE_UNSPECIFIED;
  }
}

absl::Status CheckFinite(const std::string& name, const torch::Tensor& tensor) {
  const torch::Tensor bad = torch::isfinite(tensor.flatten()).logical_not();
  if (!bad.any().item<bool>()) return absl::OkStatus();
  const int64_t first = bad.nonzero()[0].item<int64_t>();
  return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "': element ", first, " is ",
                                                 tensor.flatten()[first].item<double>()));
}

}  // namespace

void TensorFile::Add(const std::string& name, const torch::Tensor& tensor) {
  torch::Tensor copy = torch::empty(tensor.sizes(), tensor.options().device(torch::kCPU));
  copy.copy_(tensor.detach());
  tensors_.emplace_back(name, std::move(copy));
}

absl::StatusOr<std::string> TensorFile::Encode() const {
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors_) {
    views.push_back(
        {name, WireDType(tensor.scalar_type()), tensor.sizes().vec(),
         absl::string_view(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes())});
  }
  return EncodeSafetensors(views, metadata_);
}

absl::StatusOr<torch::Tensor> ReadTensor(const Safetensors& file, absl::string_view name,
                                         torch::Dtype dtype, const std::vector<int64_t>& shape) {
  const absl::StatusOr<TensorView> view = file.Find(name, WireDType(dtype), shape);
  if (!view.ok()) return view.status();
  torch::Tensor tensor = torch::empty(shape, torch::TensorOptions().dtype(dtype));
  if (!view->bytes.empty()) {
    std::memcpy(tensor.data_ptr(), view->bytes.data(), view->bytes.size());
  }
  if (tensor.is_floating_point()) {
    if (absl::Status status = CheckFinite(view->name, tensor); !status.ok()) return status;
  }
  return tensor;
}

}  // namespace troupe
