#ifndef TROUPE_COMMON_MLP_H_
#define TROUPE_COMMON_MLP_H_

#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "common/flat_parameters.h"
#include "proto/config.pb.h"

namespace troupe {

// Sizes of a multi-layer perceptron, or of an ensemble of equal ones that is computed as one
// batched product.
struct MlpShape {
  int64_t inputs = 0;
  int64_t outputs = 0;
  // 0: one network, parameters [in, out], outputs [B, out].  E >= 1: parameters [E, in, out],
  // outputs [E, B, out].
  int64_t ensemble = 0;
  proto::Mlp spec;  // hidden sizes written out
  // Above 0: weights are drawn orthogonal, those of hidden layers with the gain sqrt(2), those of
  // the head with this one, and biases are 0 (PPO's usual start).  0: as PyTorch's linear layers.
  double head_gain = 0;
};

// `spec` with the default hidden sizes written out.
proto::Mlp WithHiddenSizes(proto::Mlp spec);

// The parameters of an MLP in the order that MlpForward wants: hidden.I.weight, hidden.I.bias,
// with layer_norm norm.I.weight and norm.I.bias, ..., head.weight, head.bias.
std::vector<ParameterSpec> MlpParameters(const MlpShape& shape);

// The network's value at `x`: [B, in], or [E, B, in] for an ensemble (an expanded [B, in] costs
// nothing).  Dropout is applied only if there is a generator to draw from.
torch::Tensor MlpForward(const MlpShape& shape, const std::vector<torch::Tensor>& parameters,
                         torch::Tensor x, std::optional<at::Generator> dropout_generator = {});

}  // namespace troupe

#endif  // TROUPE_COMMON_MLP_H_
