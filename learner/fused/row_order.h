#ifndef TROUPE_LEARNER_FUSED_ROW_ORDER_H_
#define TROUPE_LEARNER_FUSED_ROW_ORDER_H_

#include "learner/fused/packed_network.h"

namespace troupe {

inline constexpr int kTileRows = 16;

// Rows in memory.  16 of them lie together, row g beside row g + 8, so that 16 bytes are an operand
// of a tensor-core product: in shared memory a number is followed by that of the same column eight
// rows on.  In the GPU's memory two columns of two rows lie together,
//   outputs (also inputs)  (g, n) (g, n + 1) (g + 8, n) (g + 8, n + 1)
//   gradients              (g, n) (g + 8, n) (g, n + 1) (g + 8, n + 1)
// for they are the first and the second factor of the sums over rows.
TROUPE_HOST_DEVICE inline int SharedPlace(int row, int column, int stride) {
  return row % 8 * stride + 2 * column + row / 8;
}
TROUPE_HOST_DEVICE inline int OutputPlace(int row, int column, int width) {
  return row / kTileRows * kTileRows * width + (row % 8 * (width / 2) + column / 2) * 4 +
         row % kTileRows / 8 * 2 + column % 2;
}
TROUPE_HOST_DEVICE inline int GradientPlace(int row, int column, int width) {
  return row / kTileRows * kTileRows * width + (row % 8 * (width / 2) + column / 2) * 4 +
         column % 2 * 2 + row % kTileRows / 8;
}
// Floats from one row to the next in shared memory, with few conflicts of banks.
TROUPE_HOST_DEVICE inline int SharedStride(int width) { return 2 * RoundUp(width, 16) + 20; }
// Widths of the gradients of heads are padded to a multiple of this, a tile of parameters.
inline constexpr int kHeadPadding = 32;

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROW_ORDER_H_
