#ifndef TROUPE_LEARNER_FUSED_PACKED_NETWORK_H_
#define TROUPE_LEARNER_FUSED_PACKED_NETWORK_H_

#include <cstdint>
#include <vector>

#include "learner/fused/philox.h"

namespace troupe {

// How the GPU engine lays out a network's parameters, so that one load of 16 bytes a thread gives a
// warp the operand of two tensor-core products (mma.m16n8k8), in whole cache lines.
//
// A matrix [k inputs, n outputs] consists of blocks of 16 inputs by 8 outputs; a block is 8 x 16
// floats, output by output, and the blocks of 8 outputs follow each other.  For the way back
// through the layer there is a second copy, transposed: blocks of 16 outputs by 8 inputs.  Whatever
// the padding adds stays zero, for its gradients are.

inline constexpr int kBlockK = 16, kBlockN = 8, kBlockFloats = kBlockK * kBlockN;
// What products are over, and widths of hidden layers, is padded to a multiple of this: a warp
// takes four blocks at a time, and 1, 2, 4 or 8 blocks of threads share a hidden layer evenly.
inline constexpr int kPadding = 64;
// Outputs that a warp computes at once; those of heads are padded to a multiple of this.
inline constexpr int kTileColumns = 2 * kBlockN;
inline constexpr int kMaxLayers = 8;  // hidden ones and the head

TROUPE_HOST_DEVICE inline int RoundUp(int n, int multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Where element (k, n) lies; `padded_k` is a multiple of kBlockK.
TROUPE_HOST_DEVICE inline int PackedIndex(int k, int n, int padded_k) {
  return ((n / kBlockN) * (padded_k / kBlockK) + k / kBlockK) * kBlockFloats +
         (n % kBlockN) * kBlockK + k % kBlockK;
}

// One linear layer.  Offsets are in floats from the network's first, transposed ones in the vector
// of transposed copies.
struct PackedLayer {
  int k, n;                // inputs and outputs
  int padded_k, padded_n;  // multiples of kPadding, a head's outputs of kTileColumns
  int transposed_n;        // padded_n up to a multiple of kPadding
  int weights, bias, transposed;
  int norm_gain = 0, norm_bias = 0;  // LayerNorm's; 0: there is none

  TROUPE_HOST_DEVICE bool has_norm() const { return norm_gain > 0; }
};

struct PackedNetwork {
  int num_layers = 0;  // the head included
  PackedLayer layers[kMaxLayers];
  int size = 0;             // floats of all layers
  int transposed_size = 0;  // of the transposed copies

  TROUPE_HOST_DEVICE const PackedLayer& head() const { return layers[num_layers - 1]; }
  TROUPE_HOST_DEVICE int num_hidden() const { return num_layers - 1; }
};

// `layer_norm`: of the hidden layers.  REQUIRES: fewer than kMaxLayers hidden layers.
PackedNetwork MakePackedNetwork(int inputs, const std::vector<int64_t>& hidden, int outputs,
                                bool layer_norm = false);

// Between the packed vectors of `ensemble` networks one after another and the vector of
// FlatParameters.  Pack leaves padding as it is.
void Pack(const PackedNetwork& network, int ensemble, const float* flat, float* packed);
void Unpack(const PackedNetwork& network, int ensemble, const float* packed, float* flat);
// Where each element of FlatParameters' vector is in the packed one: to unpack often.
std::vector<int32_t> PackedPlaces(const PackedNetwork& network, int ensemble);
// The transposed copies of a packed vector.
void Transpose(const PackedNetwork& network, int ensemble, const float* packed, float* transposed);
// Parameters in FlatParameters' vector.
int64_t FlatSize(const PackedNetwork& network, int ensemble);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PACKED_NETWORK_H_
