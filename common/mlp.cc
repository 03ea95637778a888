#include "common/mlp.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int kDefaultHiddenSize = 256;
constexpr double kLayerNormEpsilon = 1e-5;

// {rows, columns}, or {E, rows, columns}.
std::vector<int64_t> MatrixShape(int64_t ensemble, int64_t rows, int64_t columns) {
  if (ensemble == 0) return {rows, columns};
  return {ensemble, rows, columns};
}

// {n}, or {E, 1, n}, which broadcasts over the batch.
std::vector<int64_t> VectorShape(int64_t ensemble, int64_t n) {
  if (ensemble == 0) return {n};
  return {ensemble, 1, n};
}

// `gain`: of an orthogonal matrix; 0: as PyTorch's linear layers.
void AddLinear(const MlpShape& shape, const std::string& name, int64_t in, int64_t out, double gain,
               std::vector<ParameterSpec>& specs) {
  const double range = gain > 0 ? 0 : 1 / std::sqrt(static_cast<double>(in));
  specs.push_back({name + ".weight", MatrixShape(shape.ensemble, in, out), range, 0, gain});
  specs.push_back({name + ".bias", VectorShape(shape.ensemble, out), range, 0});
}

torch::Tensor Linear(const torch::Tensor& x, const torch::Tensor& weight,
                     const torch::Tensor& bias) {
  return weight.dim() == 2 ? torch::addmm(bias, x, weight) : torch::baddbmm(bias, x, weight);
}

torch::Tensor Dropout(const torch::Tensor& x, double p, const at::Generator& generator) {
  const torch::Tensor kept = torch::empty_like(x).bernoulli_(1 - p, generator);
  return x * kept.mul_(1 / (1 - p));
}

torch::Tensor Activate(torch::Tensor x, proto::Activation activation) {
  switch (activation) {
    case proto::TANH:
      return torch::tanh_(x);
    case proto::ELU:
      return torch::elu(x);
    default:
      return torch::relu_(x);
  }
}

}  // namespace

proto::Mlp WithHiddenSizes(proto::Mlp spec) {
  if (spec.hidden_sizes_size() == 0) {
    spec.add_hidden_sizes(kDefaultHiddenSize);
    spec.add_hidden_sizes(kDefaultHiddenSize);
  }
  return spec;
}

std::vector<ParameterSpec> MlpParameters(const MlpShape& shape) {
  std::vector<ParameterSpec> specs;
  const double hidden_gain = shape.head_gain > 0 ? std::sqrt(2.0) : 0;
  int64_t in = shape.inputs;
  for (int i = 0; i < shape.spec.hidden_sizes_size(); ++i) {
    const int64_t out = shape.spec.hidden_sizes(i);
    AddLinear(shape, absl::StrCat("hidden.", i), in, out, hidden_gain, specs);
    if (shape.spec.layer_norm()) {
      const std::string norm = absl::StrCat("norm.", i);
      specs.push_back({norm + ".weight", VectorShape(shape.ensemble, out), 0, 1});
      specs.push_back({norm + ".bias", VectorShape(shape.ensemble, out), 0, 0});
    }
    in = out;
  }
  AddLinear(shape, "head", in, shape.outputs, shape.head_gain, specs);
  return specs;
}

torch::Tensor MlpForward(const MlpShape& shape, const std::vector<torch::Tensor>& parameters,
                         torch::Tensor x, std::optional<at::Generator> dropout_generator) {
  auto next = parameters.begin();
  for (const int64_t width : shape.spec.hidden_sizes()) {
    x = Linear(x, next[0], next[1]);
    next += 2;
    if (dropout_generator && shape.spec.dropout() > 0) {
      x = Dropout(x, shape.spec.dropout(), *dropout_generator);
    }
    if (shape.spec.layer_norm()) {
      x = torch::layer_norm(x, {width}, {}, {}, kLayerNormEpsilon) * next[0] + next[1];
      next += 2;
    }
    x = Activate(std::move(x), shape.spec.activation());
  }
  return Linear(x, next[0], next[1]);
}

}  // namespace troupe
