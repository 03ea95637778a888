#include "common/recurrent_states.h"

#include <cstdint>
#include <vector>

namespace troupe {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

Tensor GruCell(const Tensor& gx, const Tensor& gh, const Tensor& h) {
  const int64_t units = h.size(1);
  const Tensor rz = (gx.narrow(1, 0, 2 * units) + gh.narrow(1, 0, 2 * units)).sigmoid_();
  const Tensor n = torch::addcmul(gx.narrow(1, 2 * units, units), rz.narrow(1, 0, units),
                                  gh.narrow(1, 2 * units, units))
                       .tanh_();
  return torch::lerp(n, h, rz.narrow(1, units, units));
}

Tensor LstmCell(const Tensor& gates, const Tensor& c) {
  const int64_t units = c.size(1);
  const Tensor input_forget = gates.narrow(1, 0, 2 * units).sigmoid();
  const Tensor g = gates.narrow(1, 2 * units, units).tanh();
  const Tensor o = gates.narrow(1, 3 * units, units).sigmoid();
  const Tensor c_next =
      torch::addcmul(input_forget.narrow(1, units, units) * c, input_forget.narrow(1, 0, units), g);
  return torch::cat({o * c_next.tanh(), c_next}, 1);
}

// Which rows have any fresh state.
std::vector<bool> AnyFresh(const Tensor& fresh) {
  const Tensor any = fresh.any(1).contiguous();
  const bool* const first = any.data_ptr<bool>();
  return std::vector<bool>(first, first + any.numel());
}

// Sizes and memory of one row's gradient; all arrays are [batch, ...] and contiguous.
template <typename T>
struct RowGradient {
  int64_t batch, units;
  const T* gates;    // after their activations
  const T* before;   // the state
  const T* after;    // the state
  const T* gh_n;     // GRU: W_h h + b_h of the gate n
  const T* d_after;  // [batch, state], with what came from the next row
  T* d_gx;           // [batch, gates]
  T* d_gh;           // [batch, gates]; LSTM: d_gx
  T* d_before;       // [batch, state], without what goes through W_h
};

// With h' = n + z (h - n), n = tanh(gx_n + r gh_n).
template <typename T>
void GruGradient(const RowGradient<T>& row) {
  const int64_t u = row.units;
  for (int64_t i = 0; i < row.batch; ++i) {
    const T *r = row.gates + 3 * u * i, *z = r + u, *n = z + u, *h = row.before + u * i,
            *gh_n = row.gh_n + u * i, *d = row.d_after + u * i;
    T *d_gx = row.d_gx + 3 * u * i, *d_gh = row.d_gh + 3 * u * i, *d_h = row.d_before + u * i;
    for (int64_t j = 0; j < u; ++j) {
      const T d_n = d[j] * (1 - z[j]) * (1 - n[j] * n[j]);
      d_gx[j] = d_gh[j] = d_n * gh_n[j] * r[j] * (1 - r[j]);
      d_gx[u + j] = d_gh[u + j] = d[j] * (h[j] - n[j]) * z[j] * (1 - z[j]);
      d_gx[2 * u + j] = d_n;
      d_gh[2 * u + j] = d_n * r[j];
      d_h[j] = d[j] * z[j];
    }
  }
}

// With c' = f c + i g, h' = o tanh(c').
template <typename T>
void LstmGradient(const RowGradient<T>& row) {
  const int64_t u = row.units;
  for (int64_t k = 0; k < row.batch; ++k) {
    const T *i = row.gates + 4 * u * k, *f = i + u, *g = f + u, *o = g + u,
            *c = row.before + 2 * u * k + u, *h_next = row.after + 2 * u * k,
            *d_h = row.d_after + 2 * u * k, *d_c = d_h + u;
    T *d_g = row.d_gx + 4 * u * k, *d_before = row.d_before + 2 * u * k;
    for (int64_t j = 0; j < u; ++j) {
      const T tanh_c = o[j] != 0 ? h_next[j] / o[j] : 0;
      const T d_c_next = d_c[j] + d_h[j] * o[j] * (1 - tanh_c * tanh_c);
      d_g[j] = d_c_next * g[j] * i[j] * (1 - i[j]);
      d_g[u + j] = d_c_next * c[j] * f[j] * (1 - f[j]);
      d_g[2 * u + j] = d_c_next * i[j] * (1 - g[j] * g[j]);
      d_g[3 * u + j] = d_h[j] * tanh_c * o[j] * (1 - o[j]);
      d_before[j] = 0;
      d_before[u + j] = d_c_next * f[j];
    }
  }
}

// Steps of a forward pass, which leave what the backward pass needs: the states before all rows,
// the gates after their activations, W_h h + b_h, and the states.
struct ForwardPass {
  Tensor before, gates, gh, states;
};

ForwardPass StepForward(const RecurrentInputs& q) {
  const int64_t length = q.gates_x.size(0), units = q.weight.size(0);
  ForwardPass pass{.before = torch::empty_like(q.stored),
                   .gates = q.gates_x.clone(at::MemoryFormat::Contiguous),
                   .gh = torch::empty_like(q.gates_x, at::MemoryFormat::Contiguous),
                   .states = torch::empty_like(q.stored)};
  const auto columns = [](const Tensor& all, int64_t begin, int64_t count) {
    return all.narrow(2, begin, count).unbind(0);
  };
  const bool lstm = q.kind == proto::LSTM;
  const std::vector<Tensor> before = pass.before.unbind(0), states = pass.states.unbind(0),
                            h = columns(pass.before, 0, units), gh = pass.gh.unbind(0),
                            first = columns(pass.gates, 0, 2 * units),
                            third = columns(pass.gates, 2 * units, units),
                            gh_first = columns(pass.gh, 0, 2 * units),
                            r = columns(pass.gates, 0, units),
                            z = columns(pass.gates, units, units),
                            gh_n = columns(pass.gh, 2 * units, units);
  const std::vector<bool> any_fresh = AnyFresh(q.fresh);
  for (int64_t t = 0; t < length; ++t) {
    before[t].copy_(t == 0 ? q.stored[0] : states[t - 1]);
    if (t > 0 && any_fresh[t]) {
      before[t].copy_(torch::where(q.fresh[t].unsqueeze(1), q.stored[t], states[t - 1]));
    }
    Tensor row_gh = gh[t];
    at::addmm_out(row_gh, q.bias, h[t], q.weight);
    if (lstm) {
      const Tensor gates = pass.gates[t].add_(row_gh);
      first[t].sigmoid_();
      third[t].tanh_();
      gates.narrow(1, 3 * units, units).sigmoid_();
      const Tensor c = torch::addcmul(z[t] * before[t].narrow(1, units, units), r[t], third[t]);
      states[t].narrow(1, units, units).copy_(c);
      states[t].narrow(1, 0, units).copy_(c.tanh_()).mul_(gates.narrow(1, 3 * units, units));
    } else {
      first[t].add_(gh_first[t]).sigmoid_();
      third[t].addcmul_(r[t], gh_n[t]).tanh_();
      Tensor state = states[t];
      at::lerp_out(state, third[t], before[t], z[t]);
    }
  }
  return pass;
}

class StatesFunction final : public torch::autograd::Function<StatesFunction> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gates_x, const Tensor& weight,
                        const Tensor& bias, const Tensor& fresh, const Tensor& stored, bool lstm) {
    const ForwardPass pass =
        StepForward({lstm ? proto::LSTM : proto::GRU, gates_x, weight, bias, fresh, stored});
    context->save_for_backward({pass.before, pass.gates, pass.gh, pass.states, weight, fresh});
    context->saved_data["lstm"] = lstm;
    return pass.states;
  }
  static tensor_list backward(AutogradContext* context, const tensor_list& d_outputs);
};

// Gradients of one row after another, from the last to the first.
template <typename T>
void StepBackward(bool lstm, const tensor_list& saved, Tensor& d_states, const Tensor& d_gx,
                  const Tensor& d_gh) {
  const Tensor &before = saved[0], &gates = saved[1], &states = saved[3], &weight = saved[4],
               &fresh = saved[5];
  const int64_t length = gates.size(0), batch = gates.size(1), units = weight.size(0);
  const Tensor gh_n = lstm ? Tensor() : saved[2].narrow(2, 2 * units, units).contiguous();
  const Tensor weight_t = weight.t();
  const std::vector<bool> any_fresh = AnyFresh(fresh);
  Tensor d_before = torch::empty_like(states[0]);
  const auto at = [](const Tensor& all, int64_t t) {
    return all.data_ptr<T>() + t * all.stride(0);
  };
  for (int64_t t = length - 1; t >= 0; --t) {
    const RowGradient<T> row{batch,           units,
                             at(gates, t),    at(before, t),
                             at(states, t),   lstm ? nullptr : at(gh_n, t),
                             at(d_states, t), at(d_gx, t),
                             at(d_gh, t),     d_before.data_ptr<T>()};
    lstm ? LstmGradient(row) : GruGradient(row);
    if (t == 0) break;
    d_before.narrow(1, 0, units).addmm_(d_gh[t], weight_t);
    if (any_fresh[t]) d_before.masked_fill_(fresh[t].unsqueeze(1), 0);
    d_states[t - 1].add_(d_before);
  }
}

tensor_list StatesFunction::backward(AutogradContext* context, const tensor_list& d_outputs) {
  const tensor_list saved = context->get_saved_variables();
  const bool lstm = context->saved_data["lstm"].toBool();
  const Tensor &before = saved[0], &gates = saved[1];
  Tensor d_states = d_outputs[0].clone(at::MemoryFormat::Contiguous);
  const Tensor d_gx = torch::empty_like(gates), d_gh = lstm ? d_gx : torch::empty_like(gates);
  AT_DISPATCH_FLOATING_TYPES(gates.scalar_type(), "recurrent_states",
                             [&] { StepBackward<scalar_t>(lstm, saved, d_states, d_gx, d_gh); });
  const int64_t units = saved[4].size(0);
  const Tensor h = before.narrow(2, 0, units).reshape({-1, units});
  const Tensor d_rows = d_gh.flatten(0, 1);
  return {d_gx, h.t().mm(d_rows), d_rows.sum(0), Tensor(), Tensor(), Tensor()};
}

}  // namespace

Tensor RecurrentCell(proto::RecurrenceKind kind, const Tensor& gates_x, const Tensor& weight,
                     const Tensor& bias, const Tensor& state) {
  if (kind != proto::LSTM) return GruCell(gates_x, torch::addmm(bias, state, weight), state);
  const int64_t units = weight.size(0);
  const Tensor gates = torch::addmm(bias, state.narrow(1, 0, units), weight) + gates_x;
  return LstmCell(gates, state.narrow(1, units, units));
}

Tensor StatesCellByCell(const RecurrentInputs& q) {
  const std::vector<bool> any_fresh = AnyFresh(q.fresh);
  const Tensor fresh = q.fresh.unsqueeze(2).to(q.stored.device());
  std::vector<Tensor> states;
  for (int64_t t = 0; t < q.gates_x.size(0); ++t) {
    Tensor before = t == 0 ? q.stored[0] : states.back();
    if (t > 0 && any_fresh[t]) before = torch::where(fresh[t], q.stored[t], before);
    states.push_back(RecurrentCell(q.kind, q.gates_x[t], q.weight, q.bias, before));
  }
  return torch::stack(states);
}

Tensor StatesOnCpu(const RecurrentInputs& q) {
  return StatesFunction::apply(q.gates_x, q.weight, q.bias, q.fresh.contiguous(),
                               q.stored.contiguous(), q.kind == proto::LSTM);
}

}  // namespace troupe
