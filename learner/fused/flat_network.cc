#include "learner/fused/flat_network.h"

namespace troupe {

FlatNetwork MakeFlatNetwork(int64_t ensemble, int64_t inputs, const std::vector<int64_t>& hidden,
                            int64_t outputs, bool layer_norm) {
  FlatNetwork network;
  network.ensemble = ensemble;
  int64_t k = inputs;
  for (size_t l = 0; l <= hidden.size(); ++l) {
    FlatLayer layer;
    const bool is_head = l == hidden.size();
    layer.name = is_head ? "head" : "hidden." + std::to_string(l);
    layer.k = k;
    layer.n = is_head ? outputs : hidden[l];
    layer.weights = network.size;
    layer.bias = layer.weights + ensemble * layer.k * layer.n;
    network.size = layer.bias + ensemble * layer.n;
    layer.has_norm = layer_norm && !is_head;
    if (layer.has_norm) {
      layer.norm_gain = network.size;
      layer.norm_bias = layer.norm_gain + ensemble * layer.n;
      network.size = layer.norm_bias + ensemble * layer.n;
    }
    k = layer.n;
    network.layers.push_back(std::move(layer));
  }
  return network;
}

}  // namespace troupe
