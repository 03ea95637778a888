#include "learner/fused/packed_network.h"

#include <numeric>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "learner/fused/flat_network.h"

namespace troupe {
namespace {

class PackedNetworkTest : public testing::TestWithParam<bool> {};

TEST_P(PackedNetworkTest, UnpackGivesBackWhatWasPackedAndPaddingStaysZero) {
  const bool layer_norm = GetParam();
  const PackedNetwork network = MakePackedNetwork(23, {33, 70}, 12, layer_norm);
  const int64_t size = MakeFlatNetwork(2, 23, {33, 70}, 12, layer_norm).size;
  ASSERT_EQ(FlatSize(network, 2), size);
  std::vector<float> flat(size), packed(2 * network.size, 0), again(size);
  std::iota(flat.begin(), flat.end(), 1.0f);
  Pack(network, 2, flat.data(), packed.data());
  Unpack(network, 2, packed.data(), again.data());
  EXPECT_EQ(again, flat);
  std::multiset<float> kept(flat.begin(), flat.end());
  int64_t zeros = 0;
  for (const float value : packed) zeros += value == 0 ? 1 : 0;
  EXPECT_EQ(zeros, 2 * network.size - size);
}

TEST_P(PackedNetworkTest, TransposedCopiesHaveTheSameElements) {
  const PackedNetwork network = MakePackedNetwork(5, {20}, 3, GetParam());
  std::vector<float> flat(FlatSize(network, 1));
  std::iota(flat.begin(), flat.end(), 1.0f);
  std::vector<float> packed(network.size, 0), transposed(network.transposed_size, 0);
  Pack(network, 1, flat.data(), packed.data());
  Transpose(network, 1, packed.data(), transposed.data());
  for (int l = 0; l < network.num_layers; ++l) {
    const PackedLayer& layer = network.layers[l];
    for (int k = 0; k < layer.k; ++k) {
      for (int n = 0; n < layer.n; ++n) {
        EXPECT_EQ(transposed[layer.transposed + PackedIndex(n, k, layer.transposed_n)],
                  packed[layer.weights + PackedIndex(k, n, layer.padded_k)]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(LayerNorm, PackedNetworkTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "With" : "Without");
});

}  // namespace
}  // namespace troupe
