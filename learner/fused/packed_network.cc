#include "learner/fused/packed_network.h"

namespace troupe {
namespace {

// Calls visit(flat index, packed index, transposed index or -1) for every parameter.
template <typename Visit>
void ForEachParameter(const PackedNetwork& network, int ensemble, Visit visit) {
  int64_t flat = 0;
  for (int l = 0; l < network.num_layers; ++l) {
    const PackedLayer& layer = network.layers[l];
    for (int64_t e = 0; e < ensemble; ++e) {
      for (int k = 0; k < layer.k; ++k) {
        for (int n = 0; n < layer.n; ++n) {
          visit(flat++, e * network.size + layer.weights + PackedIndex(k, n, layer.padded_k),
                e * network.transposed_size + layer.transposed +
                    PackedIndex(n, k, layer.transposed_n));
        }
      }
    }
    const auto visit_outputs = [&](int offset) {
      for (int64_t e = 0; e < ensemble; ++e) {
        for (int n = 0; n < layer.n; ++n) visit(flat++, e * network.size + offset + n, -1);
      }
    };
    visit_outputs(layer.bias);
    if (!layer.has_norm()) continue;
    visit_outputs(layer.norm_gain);
    visit_outputs(layer.norm_bias);
  }
}

}  // namespace

PackedNetwork MakePackedNetwork(int inputs, const std::vector<int64_t>& hidden, int outputs,
                                bool layer_norm) {
  PackedNetwork network;
  network.num_layers = static_cast<int>(hidden.size()) + 1;
  int k = inputs, padded_k = RoundUp(inputs, kPadding);
  for (int l = 0; l < network.num_layers; ++l) {
    const bool is_head = l == network.num_hidden();
    PackedLayer& layer = network.layers[l];
    layer.k = k;
    layer.padded_k = padded_k;
    layer.n = is_head ? outputs : static_cast<int>(hidden[l]);
    layer.padded_n = RoundUp(layer.n, is_head ? kTileColumns : kPadding);
    layer.transposed_n = RoundUp(layer.padded_n, kPadding);
    layer.weights = network.size;
    layer.bias = layer.weights + layer.padded_k * layer.padded_n;
    const int outputs_size = RoundUp(layer.padded_n, 32);
    network.size = layer.bias + outputs_size;
    if (layer_norm && !is_head) {
      layer.norm_gain = network.size;
      layer.norm_bias = layer.norm_gain + outputs_size;
      network.size = layer.norm_bias + outputs_size;
    }
    layer.transposed = network.transposed_size;
    network.transposed_size += layer.padded_k * layer.transposed_n;
    k = layer.n;
    padded_k = layer.padded_n;
  }
  return network;
}

void Pack(const PackedNetwork& network, int ensemble, const float* flat, float* packed) {
  ForEachParameter(network, ensemble,
                   [&](int64_t from, int64_t to, int64_t) { packed[to] = flat[from]; });
}

void Unpack(const PackedNetwork& network, int ensemble, const float* packed, float* flat) {
  ForEachParameter(network, ensemble,
                   [&](int64_t to, int64_t from, int64_t) { flat[to] = packed[from]; });
}

std::vector<int32_t> PackedPlaces(const PackedNetwork& network, int ensemble) {
  std::vector<int32_t> places(FlatSize(network, ensemble));
  ForEachParameter(network, ensemble, [&](int64_t to, int64_t from, int64_t) {
    places[to] = static_cast<int32_t>(from);
  });
  return places;
}

void Transpose(const PackedNetwork& network, int ensemble, const float* packed, float* transposed) {
  ForEachParameter(network, ensemble, [&](int64_t, int64_t from, int64_t to) {
    if (to >= 0) transposed[to] = packed[from];
  });
}

int64_t FlatSize(const PackedNetwork& network, int ensemble) {
  int64_t size = 0;
  for (int l = 0; l < network.num_layers; ++l) {
    const PackedLayer& layer = network.layers[l];
    size += int64_t{layer.k + (layer.has_norm() ? 3 : 1)} * layer.n;
  }
  return size * ensemble;
}

}  // namespace troupe
