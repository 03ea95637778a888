#ifndef TROUPE_COMMON_RECURRENT_H_
#define TROUPE_COMMON_RECURRENT_H_

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/flat_parameters.h"
#include "common/mlp.h"
#include "common/recurrence.h"
#include "proto/config.pb.h"

namespace troupe {

// A recurrent layer in front of a multi-layer perceptron, with PyTorch's gates and equations, so
// that torch::gru_cell and torch::lstm_cell say the same (their weights are ours transposed):
//   GRU   r, z = sigmoid(W_x x + b_x + W_h h + b_h), n = tanh(W_x x + b_x + r (W_h h + b_h)),
//         h' = (1 - z) n + z h;
//   LSTM  i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c'); the state is h,
//   c.
struct RecurrentLayer {
  proto::Recurrence spec;  // NO_RECURRENCE: there is no such layer
  int64_t inputs = 0;
  // Where its four parameters begin among those of the network that it is part of.
  size_t first_parameter = 0;
};

// The layer of `spec` whose output `network` sees behind an input of `inputs` numbers.
RecurrentLayer LayerBefore(const MlpShape& network, const proto::Recurrence& spec, int64_t inputs);

// The parameters of `network`, then, if there is a layer, its own: recurrent.input.weight [inputs,
// gates], .bias [gates], recurrent.state.weight [units, gates] and .bias [gates], gates in the
// order r, z, n or i, f, g, o, drawn as PyTorch does.
std::vector<ParameterSpec> RecurrentParameters(const MlpShape& network,
                                               const RecurrentLayer& layer);

// The state after `x`: [B, inputs] from `state`: [B, StateSize].  Its first `units` columns are the
// layer's output.
torch::Tensor RecurrentStep(const RecurrentLayer& layer,
                            const std::vector<torch::Tensor>& parameters, const torch::Tensor& x,
                            const torch::Tensor& state);

// Rows of B windows in their order.
struct RowSequences {
  torch::Tensor x;       // [B, T, inputs]
  torch::Tensor stored;  // [B, T, StateSize]: the state before each row; undefined: 0
  // [B, T] bool: an episode ended, or was cut, in the row before, so that the row's state is
  // `stored`, as that of every first row is; elsewhere it is what the row before left.
  torch::Tensor fresh;
  int64_t burn_in = 0;  // rows at the beginning that only lead to the states of the others
};

// What the perceptron sees of the rows after burn_in: x and then the layer's output, [B, T -
// burn_in, inputs + units]; without a layer x.  Gradients reach the parameters through all these
// rows, and end at burn_in.
torch::Tensor SeeSequences(const RecurrentLayer& layer,
                           const std::vector<torch::Tensor>& parameters, const RowSequences& rows);

}  // namespace troupe

#endif  // TROUPE_COMMON_RECURRENT_H_
