#ifndef TROUPE_COMMON_FLAT_PARAMETERS_H_
#define TROUPE_COMMON_FLAT_PARAMETERS_H_

#include <torch/torch.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"

namespace troupe {

// One parameter of a network.
struct ParameterSpec {
  std::string name;  // "hidden.0.weight"
  std::vector<int64_t> shape;
  // Drawn uniformly from +-init_range, as PyTorch's linear layers are (range 1 / sqrt(fan in));
  // where that is 0, filled with `init_value`.
  double init_range = 0;
  double init_value = 0;
  // Above 0, drawn orthogonal (Saxe et al., arXiv 1312.6120), as a matrix of all axes but the first
  // in one, and multiplied by this.
  double orthogonal_gain = 0;
};

// All parameters of a network group in one vector, of which the parameters are views; so Adam,
// Polyak averaging, publishing and all-reduce are each one pass over one vector.
//
// Not thread-safe.  Movable; views stay valid.
class FlatParameters final {
 public:
  // All parameters are zero until Initialize or Load.
  FlatParameters(std::vector<ParameterSpec> specs, torch::TensorOptions options);

  // Draws all parameters anew; the same on every device for the same seed.
  void Initialize(uint64_t seed);

  // [n]: all parameters one after another, and the gradients that backward() has added up.
  const torch::Tensor& values() const { return values_; }
  const torch::Tensor& gradients() const { return gradients_; }

  // Views in the order of the specs.  Gradients reach `trainable` ones and flow through `frozen`
  // ones to a network's input only.
  const std::vector<torch::Tensor>& trainable() const { return trainable_; }
  const std::vector<torch::Tensor>& frozen() const { return frozen_; }

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // Takes the values of those parameters of `from` that are named.  REQUIRES: both have them.
  void CopyFrom(const FlatParameters& from, const std::vector<ParameterSpec>& named);

  // The parameters as tensors named prefix + name.
  void Save(const std::string& prefix, TensorFile& file) const;
  // INVALID_ARGUMENT names the tensor that is missing or another; nothing is changed then.
  absl::Status Load(const std::string& prefix, const Safetensors& file);

 private:
  std::vector<ParameterSpec> specs_;
  torch::Tensor values_, gradients_;
  std::vector<torch::Tensor> trainable_, frozen_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_FLAT_PARAMETERS_H_
