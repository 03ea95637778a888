#include "common/flat_parameters.h"

#include <algorithm>
#include <utility>

#include "common/tensor_file.h"

namespace troupe {
namespace {

int64_t NumElements(const ParameterSpec& spec) {
  int64_t n = 1;
  for (const int64_t axis : spec.shape) n *= axis;
  return n;
}

int64_t NumElements(const std::vector<ParameterSpec>& specs) {
  int64_t n = 0;
  for (const ParameterSpec& spec : specs) n += NumElements(spec);
  return n;
}

// [rows, columns] with orthonormal rows or columns, whichever are fewer; uniform over such.
torch::Tensor DrawOrthogonal(int64_t rows, int64_t columns, at::Generator& generator) {
  const bool tall = rows >= columns;
  const torch::Tensor normal =
      torch::empty({std::max(rows, columns), std::min(rows, columns)}, torch::kFloat64)
          .normal_(0, 1, generator);
  const auto [q, r] = torch::linalg_qr(normal);
  const torch::Tensor signed_q = q * r.diagonal().sign();
  return tall ? signed_q : signed_q.t();
}

}  // namespace

FlatParameters::FlatParameters(std::vector<ParameterSpec> specs, torch::TensorOptions options)
    : specs_(std::move(specs)),
      values_(torch::zeros({NumElements(specs_)}, options)),
      gradients_(torch::zeros_like(values_)) {
  int64_t offset = 0;
  for (const ParameterSpec& spec : specs_) {
    const int64_t n = NumElements(spec);
    frozen_.push_back(values_.narrow(0, offset, n).view(spec.shape));
    // A leaf of its own that shares the memory; its gradient is a view too, so backward() adds
    // into the one vector.
    torch::Tensor leaf = frozen_.back().detach().requires_grad_(true);
    leaf.mutable_grad() = gradients_.narrow(0, offset, n).view(spec.shape);
    trainable_.push_back(std::move(leaf));
    offset += n;
  }
}

void FlatParameters::Initialize(uint64_t seed) {
  const torch::NoGradGuard no_grad;
  at::Generator generator = at::globalContext().defaultGenerator(torch::kCPU).clone();
  generator.set_current_seed(seed);
  for (size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    torch::Tensor drawn = torch::full(spec.shape, spec.init_value, torch::kFloat64);
    if (spec.init_range > 0) drawn.uniform_(-spec.init_range, spec.init_range, generator);
    if (spec.orthogonal_gain > 0) {
      const int64_t rows = spec.shape[0], columns = NumElements(spec) / rows;
      drawn = DrawOrthogonal(rows, columns, generator).reshape(spec.shape) * spec.orthogonal_gain;
    }
    frozen_[i].copy_(drawn);
  }
}

void FlatParameters::CopyFrom(const FlatParameters& from, const std::vector<ParameterSpec>& named) {
  const torch::NoGradGuard no_grad;
  const auto of = [](const FlatParameters& all, const std::string& name) -> const torch::Tensor& {
    const auto spec = std::find_if(all.specs_.begin(), all.specs_.end(),
                                   [&](const ParameterSpec& s) { return s.name == name; });
    return all.frozen_.at(spec - all.specs_.begin());
  };
  for (const ParameterSpec& spec : named) of(*this, spec.name).copy_(of(from, spec.name));
}

void FlatParameters::Save(const std::string& prefix, TensorFile& file) const {
  for (size_t i = 0; i < specs_.size(); ++i) file.Add(prefix + specs_[i].name, frozen_[i]);
}

absl::Status FlatParameters::Load(const std::string& prefix, const Safetensors& file) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> read;
  for (const ParameterSpec& spec : specs_) {
    absl::StatusOr<torch::Tensor> tensor =
        ReadTensor(file, prefix + spec.name, values_.scalar_type(), spec.shape);
    if (!tensor.ok()) return tensor.status();
    read.push_back(*std::move(tensor));
  }
  for (size_t i = 0; i < specs_.size(); ++i) frozen_[i].copy_(read[i]);
  return absl::OkStatus();
}

}  // namespace troupe
