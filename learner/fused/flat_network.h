#ifndef TROUPE_LEARNER_FUSED_FLAT_NETWORK_H_
#define TROUPE_LEARNER_FUSED_FLAT_NETWORK_H_

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

// Where the parameters of an MLP, or of an ensemble of equal ones, lie in the vector that
// FlatParameters makes of MlpParameters: layer by layer the weights [ensemble, k, n], then the
// biases [ensemble, n]; with LayerNorm then its gains and its biases, [ensemble, n] each.
struct FlatLayer {
  std::string name;               // "hidden.0", ..., "head"
  int64_t k = 0, n = 0;           // inputs, outputs
  int64_t weights = 0, bias = 0;  // offsets of the first network's
  bool has_norm = false;
  int64_t norm_gain = 0, norm_bias = 0;  // offsets likewise, if it has

  int64_t weights_of(int64_t network) const { return weights + network * k * n; }
  int64_t bias_of(int64_t network) const { return bias + network * n; }
  int64_t norm_gain_of(int64_t network) const { return norm_gain + network * n; }
  int64_t norm_bias_of(int64_t network) const { return norm_bias + network * n; }
};

struct FlatNetwork {
  std::vector<FlatLayer> layers;
  int64_t ensemble = 1;
  int64_t size = 0;

  int64_t num_hidden() const { return static_cast<int64_t>(layers.size()) - 1; }
  const FlatLayer& head() const { return layers.back(); }
};

// `layer_norm`: of the hidden layers.
FlatNetwork MakeFlatNetwork(int64_t ensemble, int64_t inputs, const std::vector<int64_t>& hidden,
                            int64_t outputs, bool layer_norm = false);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_FLAT_NETWORK_H_
