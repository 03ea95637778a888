#include "common/recurrent.h"

#include <cmath>
#include <utility>

#include "common/recurrent_states.h"

namespace troupe {
namespace {

using torch::Tensor;

// The layer's own parameters.
struct Own {
  const Tensor &input_weight, &input_bias, &state_weight, &state_bias;
};

Own OwnOf(const RecurrentLayer& layer, const std::vector<Tensor>& parameters) {
  const Tensor* const own = &parameters[layer.first_parameter];
  return {own[0], own[1], own[2], own[3]};
}

int64_t NumGates(const proto::Recurrence& spec) { return spec.kind() == proto::LSTM ? 4 : 3; }

// The states after the rows [begin, end), [end - begin, B, state], from `state` in the first of
// them unless it is fresh; rows first, as `rows` is not.
Tensor StatesAfter(const RecurrentLayer& layer, const Own& own, const RowSequences& rows,
                   int64_t begin, int64_t end, const Tensor& state) {
  const auto part = [&](const Tensor& all) {
    return all.narrow(1, begin, end - begin).transpose(0, 1);
  };
  const Tensor x = part(rows.x).contiguous(), fresh = part(rows.fresh);
  const int64_t length = x.size(0), batch = x.size(1);
  RecurrentInputs inputs{
      .kind = layer.spec.kind(),
      .gates_x =
          torch::addmm(own.input_bias, x.flatten(0, 1), own.input_weight).view({length, batch, -1}),
      .weight = own.state_weight,
      .bias = own.state_bias,
      .fresh = fresh.to(torch::kCPU, torch::kBool, false, /*copy=*/true),
      .stored = rows.stored.defined() ? part(rows.stored).clone()
                                      : x.new_zeros({length, batch, StateSize(layer.spec)})};
  if (state.defined()) {
    inputs.stored[0].copy_(torch::where(fresh[0].unsqueeze(1), inputs.stored[0], state));
  }
  inputs.fresh[0].fill_(true);
  return x.is_cpu() ? StatesOnCpu(inputs) : StatesCellByCell(inputs);
}

}  // namespace

RecurrentLayer LayerBefore(const MlpShape& network, const proto::Recurrence& spec, int64_t inputs) {
  return {spec, inputs, MlpParameters(network).size()};
}

std::vector<ParameterSpec> RecurrentParameters(const MlpShape& network,
                                               const RecurrentLayer& layer) {
  std::vector<ParameterSpec> specs = MlpParameters(network);
  if (!HasMemory(layer.spec)) return specs;
  const int64_t units = layer.spec.units(), gates = NumGates(layer.spec) * units;
  const double range = 1 / std::sqrt(static_cast<double>(units));
  specs.push_back({"recurrent.input.weight", {layer.inputs, gates}, range});
  specs.push_back({"recurrent.input.bias", {gates}, range});
  specs.push_back({"recurrent.state.weight", {units, gates}, range});
  specs.push_back({"recurrent.state.bias", {gates}, range});
  return specs;
}

Tensor RecurrentStep(const RecurrentLayer& layer, const std::vector<Tensor>& parameters,
                     const Tensor& x, const Tensor& state) {
  const Own own = OwnOf(layer, parameters);
  return RecurrentCell(layer.spec.kind(), torch::addmm(own.input_bias, x, own.input_weight),
                       own.state_weight, own.state_bias, state);
}

Tensor SeeSequences(const RecurrentLayer& layer, const std::vector<Tensor>& parameters,
                    const RowSequences& rows) {
  if (!HasMemory(layer.spec)) return rows.x;
  const Own own = OwnOf(layer, parameters);
  const int64_t length = rows.x.size(1);
  Tensor state;
  if (rows.burn_in > 0) {
    const torch::NoGradGuard no_grad;
    state = StatesAfter(layer, own, rows, 0, rows.burn_in, state)[rows.burn_in - 1];
  }
  const Tensor states = StatesAfter(layer, own, rows, rows.burn_in, length, state);
  const Tensor h = states.narrow(2, 0, layer.spec.units()).transpose(0, 1);
  return torch::cat({rows.x.narrow(1, rows.burn_in, length - rows.burn_in), h}, 2);
}

}  // namespace troupe
