#include "common/recurrent.h"

#include <cmath>
#include <utility>

namespace troupe {
namespace {

using torch::Tensor;

enum Parameter { kInputWeight, kInputBias, kStateWeight, kStateBias };

int64_t NumGates(const proto::Recurrence& spec) { return spec.kind() == proto::LSTM ? 4 : 3; }

// W_x x + b_x of all rows at once, [..., gates].
Tensor InputGates(const Tensor* parameters, const Tensor& x) {
  const Tensor flat = x.reshape({-1, x.size(-1)});
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = parameters[kInputBias].size(0);
  return torch::addmm(parameters[kInputBias], flat, parameters[kInputWeight]).view(sizes);
}

Tensor GruStep(const Tensor& gx, const Tensor* parameters, const Tensor& h) {
  const int64_t units = h.size(1);
  const Tensor gh = torch::addmm(parameters[kStateBias], h, parameters[kStateWeight]);
  const Tensor rz = (gx.narrow(1, 0, 2 * units) + gh.narrow(1, 0, 2 * units)).sigmoid_();
  const Tensor n = torch::addcmul(gx.narrow(1, 2 * units, units), rz.narrow(1, 0, units),
                                  gh.narrow(1, 2 * units, units))
                       .tanh_();
  return torch::lerp(n, h, rz.narrow(1, units, units));
}

Tensor LstmStep(const Tensor& gx, const Tensor* parameters, const Tensor& state) {
  const int64_t units = state.size(1) / 2;
  const Tensor h = state.narrow(1, 0, units), c = state.narrow(1, units, units);
  const Tensor gates = torch::addmm(parameters[kStateBias], h, parameters[kStateWeight]) + gx;
  const Tensor input_forget = gates.narrow(1, 0, 2 * units).sigmoid();
  const Tensor g = gates.narrow(1, 2 * units, units).tanh();
  const Tensor o = gates.narrow(1, 3 * units, units).sigmoid();
  const Tensor c_next =
      torch::addcmul(input_forget.narrow(1, units, units) * c, input_forget.narrow(1, 0, units), g);
  return torch::cat({o * c_next.tanh(), c_next}, 1);
}

Tensor Step(const RecurrentLayer& layer, const Tensor* parameters, const Tensor& gx,
            const Tensor& state) {
  return layer.spec.kind() == proto::LSTM ? LstmStep(gx, parameters, state)
                                          : GruStep(gx, parameters, state);
}

// Steps through the rows [begin, end) from `state`, which is undefined at the first row.  Returns
// their outputs and leaves the last state in `state`.
std::vector<Tensor> StepThrough(const RecurrentLayer& layer, const Tensor* parameters,
                                const RowSequences& rows, int64_t begin, int64_t end,
                                Tensor& state) {
  if (begin == end) return {};
  const Tensor gx = InputGates(parameters, rows.x.narrow(1, begin, end - begin));
  const Tensor any_fresh = rows.fresh.any(0).to(torch::kCPU);
  const bool* is_any_fresh = any_fresh.data_ptr<bool>();
  const Tensor zeros = rows.x.new_zeros({rows.x.size(0), StateSize(layer.spec)});
  std::vector<Tensor> outputs;
  for (int64_t t = begin; t < end; ++t) {
    const Tensor stored = rows.stored.defined() ? rows.stored.select(1, t) : zeros;
    if (!state.defined()) {
      state = stored;
    } else if (is_any_fresh[t]) {
      state = torch::where(rows.fresh.select(1, t).unsqueeze(1), stored, state);
    }
    state = Step(layer, parameters, gx.select(1, t - begin), state);
    outputs.push_back(state.narrow(1, 0, layer.spec.units()));
  }
  return outputs;
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
  const Tensor* const own = &parameters[layer.first_parameter];
  return Step(layer, own, InputGates(own, x), state);
}

Tensor SeeSequences(const RecurrentLayer& layer, const std::vector<Tensor>& parameters,
                    const RowSequences& rows) {
  if (!HasMemory(layer.spec)) return rows.x;
  const Tensor* const own = &parameters[layer.first_parameter];
  const int64_t length = rows.x.size(1);
  Tensor state;
  {
    const torch::NoGradGuard no_grad;
    StepThrough(layer, own, rows, 0, rows.burn_in, state);
  }
  const Tensor h =
      torch::stack(StepThrough(layer, own, rows, rows.burn_in, length, state), /*dim=*/1);
  return torch::cat({rows.x.narrow(1, rows.burn_in, length - rows.burn_in), h}, 2);
}

}  // namespace troupe
