#include "learner/fused/cpu/padded_mlp.h"

#include <algorithm>

namespace troupe::cpu {

MlpBlock::MlpBlock(const PaddedMlp& mlp, int64_t max_rows)
    : output(max_rows * mlp.output_stride()), output_gradient(max_rows * mlp.output_stride()) {
  for (int64_t l = 0; l < mlp.num_hidden(); ++l) {
    h.emplace_back(max_rows * RoomFor(mlp.width(l)));
    d.emplace_back(max_rows * RoomFor(mlp.width(l)));
    if (!mlp.has_norm()) continue;
    normalized.emplace_back(max_rows * RoomFor(mlp.width(l)));
    inverse_deviation.emplace_back(max_rows);
    norm_gradient.emplace_back(2 * RoomFor(mlp.width(l)));
  }
}

PaddedMlp::PaddedMlp(const FlatNetwork& network, Unit unit, const Kernels& kernels,
                     int64_t first_wanted_input)
    : network_(network), unit_(unit), kernels_(kernels) {
  for (const FlatLayer& flat : network.layers) {
    Layer layer{.k = flat.k, .n = flat.n, .stride = RoomFor(flat.n)};
    const bool is_first = layers_.empty();
    const bool is_scalar = flat.n == 1 && layers_.size() + 1 == network.layers.size();
    layer.weights = size_;
    layer.bias = size_ + (is_scalar ? RoomFor(flat.k) : flat.k * layer.stride);
    size_ = layer.bias + layer.stride;
    layer.has_norm = flat.has_norm;
    if (layer.has_norm) {
      layer.norm_gain = size_;
      layer.norm_bias = layer.norm_gain + layer.stride;
      size_ = layer.norm_bias + layer.stride;
    }
    layer.first_transposed = is_first ? first_wanted_input : 0;
    layer.transposed = transposed_size_;
    layer.transposed_stride = RoomFor(flat.k - layer.first_transposed);
    if (!is_scalar) transposed_size_ += flat.n * layer.transposed_stride;
    layers_.push_back(layer);
  }
}

template <typename Function>
void PaddedMlp::ForEachRun(int64_t e, const Function& f) const {
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const FlatLayer& flat = network_.layers[l];
    if (l + 1 == layers_.size() && has_scalar_output()) {
      f(layer.weights, flat.weights_of(e), layer.k);
    } else {
      for (int64_t k = 0; k < layer.k; ++k) {
        f(layer.weights + k * layer.stride, flat.weights_of(e) + k * layer.n, layer.n);
      }
    }
    f(layer.bias, flat.bias_of(e), layer.n);
    if (!layer.has_norm) continue;
    f(layer.norm_gain, flat.norm_gain_of(e), layer.n);
    f(layer.norm_bias, flat.norm_bias_of(e), layer.n);
  }
}

void PaddedMlp::Pack(const float* flat, int64_t e, float* padded) const {
  ForEachRun(
      e, [&](int64_t to, int64_t from, int64_t n) { std::copy_n(flat + from, n, padded + to); });
}

void PaddedMlp::Unpack(const float* padded, int64_t e, float* flat) const {
  ForEachRun(
      e, [&](int64_t from, int64_t to, int64_t n) { std::copy_n(padded + from, n, flat + to); });
}

void PaddedMlp::Transpose(const float* parameters, int64_t part, int64_t parts,
                          float* transposed) const {
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    if (l + 1 == layers_.size() && has_scalar_output()) continue;
    // Columns of the weights, in whole cache lines.
    const int64_t lines = layer.stride / kRowFloats;
    const int64_t begin = std::min(part * lines / parts * kRowFloats, layer.n);
    const int64_t end = std::min((part + 1) * lines / parts * kRowFloats, layer.n);
    kernels_.transpose(parameters + layer.weights + layer.first_transposed * layer.stride + begin,
                       layer.stride, layer.k - layer.first_transposed, end - begin,
                       transposed + layer.transposed + begin * layer.transposed_stride,
                       layer.transposed_stride);
  }
}

void PaddedMlp::Forward(const float* parameters, const InputRows& input, MlpBlock& block) const {
  InputRows x = input;
  for (int64_t l = 0; l < num_hidden(); ++l) {
    const Layer& layer = layers_[l];
    kernels_.multiply({.m = x.rows,
                       .n = layer.n,
                       .k = layer.k,
                       .a = x.data,
                       .a_stride = x.stride,
                       .b = parameters + layer.weights,
                       .b_stride = layer.stride,
                       .c = block.h[l].data(),
                       .c_stride = layer.stride,
                       .bias = parameters + layer.bias,
                       .finish = layer.has_norm ? Finish::kStore : Finish::kActivate,
                       .unit = unit_});
    if (layer.has_norm) Normalize(parameters, l, x.rows, block);
    x = {block.h[l].data(), layer.stride, x.rows};
  }
  const Layer& head = layers_.back();
  if (has_scalar_output()) {
    kernels_.dot_rows(x.data, x.stride, x.rows, head.k, parameters + head.weights,
                      parameters[head.bias], block.output.data());
    return;
  }
  kernels_.multiply({.m = x.rows,
                     .n = head.n,
                     .k = head.k,
                     .a = x.data,
                     .a_stride = x.stride,
                     .b = parameters + head.weights,
                     .b_stride = head.stride,
                     .c = block.output.data(),
                     .c_stride = head.stride,
                     .bias = parameters + head.bias});
}

void PaddedMlp::Normalize(const float* parameters, int64_t l, int64_t rows, MlpBlock& block) const {
  const Layer& layer = layers_[l];
  kernels_.normalize({.rows = rows,
                      .n = layer.n,
                      .stride = layer.stride,
                      .gain = parameters + layer.norm_gain,
                      .bias = parameters + layer.norm_bias,
                      .unit = unit_,
                      .h = block.h[l].data(),
                      .normalized = block.normalized[l].data(),
                      .inverse_deviation = block.inverse_deviation[l].data()});
}

// Gradients by gains and biases are wanted of whole blocks only.
void PaddedMlp::NormalizeBack(const float* parameters, int64_t l, int64_t rows,
                              const int32_t* picks, MlpBlock& block) const {
  const Layer& layer = layers_[l];
  if (!layer.has_norm) return;
  float* const gain = picks == nullptr ? block.norm_gradient[l].data() : nullptr;
  kernels_.normalize_back({.rows = rows,
                           .n = layer.n,
                           .stride = layer.stride,
                           .gain = parameters + layer.norm_gain,
                           .normalized = block.normalized[l].data(),
                           .inverse_deviation = block.inverse_deviation[l].data(),
                           .from_rows = picks,
                           .d = block.d[l].data(),
                           .gain_gradient = gain,
                           .bias_gradient = gain == nullptr ? nullptr : gain + layer.stride});
}

void PaddedMlp::Backward(const float* parameters, const float* transposed, int64_t rows,
                         const int32_t* picks, MlpBlock& block) const {
  int64_t l = num_hidden();
  const float* d = block.output_gradient.data();
  if (has_scalar_output()) {
    --l;
    kernels_.spread_rows(d, parameters + layers_[l + 1].weights, block.h[l].data(),
                         layers_[l].stride, picks, rows, layers_[l].n, unit_, block.d[l].data(),
                         layers_[l].stride);
    NormalizeBack(parameters, l, rows, picks, block);
    d = block.d[l].data();
  }
  for (; l > 0; --l) {  // through layer l to the values of the one before
    const Layer& layer = layers_[l];
    kernels_.multiply({.m = rows,
                       .n = layer.k,
                       .k = layer.n,
                       .a = d,
                       .a_stride = layer.stride,
                       .b = transposed + layer.transposed,
                       .b_stride = layer.transposed_stride,
                       .c = block.d[l - 1].data(),
                       .c_stride = layers_[l - 1].stride,
                       .finish = Finish::kSlope,
                       .unit = unit_,
                       .h = block.h[l - 1].data(),
                       .h_stride = layers_[l - 1].stride,
                       .h_rows = picks});
    NormalizeBack(parameters, l - 1, rows, picks, block);
    d = block.d[l - 1].data();
  }
}

void PaddedMlp::ParameterGradient(const InputRows& input, const MlpBlock& block, bool add,
                                  float* gradient) const {
  InputRows x = input;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const bool is_head = l + 1 == layers_.size();
    const float* const d = is_head ? block.output_gradient.data() : block.d[l].data();
    if (is_head && has_scalar_output()) {
      kernels_.sum_rows(d, x.data, x.stride, x.rows, layer.k, add, gradient + layer.weights);
      float sum = add ? gradient[layer.bias] : 0;
      for (int64_t r = 0; r < x.rows; ++r) sum += d[r];
      gradient[layer.bias] = sum;
      return;
    }
    kernels_.multiply({.m = layer.k,
                       .n = layer.n,
                       .k = x.rows,
                       .a = x.data,
                       .a_stride = x.stride,
                       .a_transposed = true,
                       .b = d,
                       .b_stride = layer.stride,
                       .c = gradient + layer.weights,
                       .c_stride = layer.stride,
                       .add = add});
    kernels_.sum_rows(nullptr, d, layer.stride, x.rows, layer.n, add, gradient + layer.bias);
    if (layer.has_norm) {
      // Gains and biases lie one behind the other, on both sides.
      float* const sums = gradient + layer.norm_gain;
      const AlignedFloats& more = block.norm_gradient[l];
      for (int64_t i = 0; i < 2 * layer.stride; ++i) sums[i] = (add ? sums[i] : 0) + more[i];
    }
    if (!is_head) x = {block.h[l].data(), layer.stride, x.rows};
  }
}

void PaddedMlp::InputGradient(const float* transposed, int64_t rows, const MlpBlock& block,
                              float* gradient) const {
  const Layer& layer = layers_[0];
  kernels_.multiply({.m = rows,
                     .n = layer.k - layer.first_transposed,
                     .k = layer.n,
                     .a = block.d[0].data(),
                     .a_stride = layer.stride,
                     .b = transposed + layer.transposed,
                     .b_stride = layer.transposed_stride,
                     .c = gradient,
                     .c_stride = layer.transposed_stride});
}

}  // namespace troupe::cpu
