#ifndef TROUPE_COMMON_RECURRENT_STATES_H_
#define TROUPE_COMMON_RECURRENT_STATES_H_

#include <torch/torch.h>

#include "proto/config.pb.h"

namespace troupe {

// What the states of a recurrent layer follow from, rows first: T rows of B sequences.
struct RecurrentInputs {
  proto::RecurrenceKind kind = proto::GRU;
  torch::Tensor gates_x;       // [T, B, gates]: W_x x + b_x
  torch::Tensor weight, bias;  // of the state: [units, gates] and [gates]
  // [T, B] bool, on the CPU, true in row 0: the state before the row is `stored`, [T, B, state], to
  // which no gradients flow.
  torch::Tensor fresh, stored;
};

// The state after one row: `gates_x` [B, gates], `state` [B, state].
torch::Tensor RecurrentCell(proto::RecurrenceKind kind, const torch::Tensor& gates_x,
                            const torch::Tensor& weight, const torch::Tensor& bias,
                            const torch::Tensor& state);

// The states after all rows, [T, B, state]: cell by cell, on any device.
torch::Tensor StatesCellByCell(const RecurrentInputs& inputs);
// The same on the CPU with a gradient in closed form, backpropagation through time, where autograd
// would make forty small operations a row.
torch::Tensor StatesOnCpu(const RecurrentInputs& inputs);

}  // namespace troupe

#endif  // TROUPE_COMMON_RECURRENT_STATES_H_
