#ifndef TROUPE_LEARNER_FUSED_ROW_STEPS_H_
#define TROUPE_LEARNER_FUSED_ROW_STEPS_H_

#include "learner/fused/packed_network.h"
#include "learner/fused/row_order.h"
#include "learner/fused/sac_formulas.h"

namespace troupe {

inline constexpr int kMaxClusterSize = 4;
inline constexpr int kLayersOfBoth = 2 * kMaxLayers;

// The way of the rows through the layers, made on the host and read by the kernels: few
// instructions that many layers share, because fetching long code takes longer than running it.

// What becomes of a product before it is stored.
enum class Combine : int {
  kNothing,
  kActivate,         // the activation of it, rounded for the next product
  kMultiplyBySlope,  // times the activation's derivative where its value is `mask`, rounded
};

// outputs = inputs * weights + bias, for some tiles of kTileColumns outputs.
struct alignas(16) ProductJob {
  const float* weights = nullptr;  // packed
  const float* bias = nullptr;     // null: none
  const float* mask = nullptr;     // rows of `width`, in the order of outputs; null: none
  float* kept =
      nullptr;  // likewise, gets the results, of kMultiplyBySlope in the order of gradients
  int width = 0;
  int blocks = 0;       // of kBlockK inputs
  int first_block = 0;  // of the layer's, of which there are `row_blocks`
  int row_blocks = 0;
  int first_tile = 0, tiles = 0;  // of each thread block
  int is_shared = 0;  // 1: the cluster's blocks take so many after each other; 0: all do the same
  int input = 0, input_stride = 0;     // floats, from the beginning of shared memory
  int output = -1, output_stride = 0;  // likewise; -1: not stored there
  int output_shift = 0;                // column `output_shift` is stored first
  HiddenUnit unit = HiddenUnit::kRelu;
  Combine combine = Combine::kNothing;
};

// LayerNorm (Ba et al., arXiv 1607.06450) of rows in shared memory, in their place; every thread
// block of a cluster does it for all 16 rows.  With x = (z - mean(z)) scale, where scale = 1 /
// sqrt(variance(z) + kNormEpsilon),
//   forward   from a layer's sums z to its values, the unit of gain x + bias
//   backward  from gradients d by gain x + bias to those by z,
//             scale (g - mean(g) - x mean(g x)), g = gain d
// and results are rounded for the next product.
struct alignas(16) NormJob {
  const float *gain = nullptr, *bias = nullptr;  // [width]
  // x, rows of `width` in the order of gradients, and scale, of each row: forward leaves them for
  // backward; null: for nobody.  Thread blocks of a cluster write the same bits.
  float *normalized = nullptr, *scale = nullptr;
  float* kept = nullptr;  // as ProductJob::kept
  // Backward leaves the gradients by gain and bias here, [tiles of kTileRows rows, 2, width], a
  // tile's sums; null: nobody wants them.
  float* sums = nullptr;
  int rows = 0, stride = 0;  // floats, from the beginning of shared memory
  int n = 0, width = 0;      // columns without and with padding
  int is_backward = 0;
  HiddenUnit unit = HiddenUnit::kRelu;
};

// What is done before a step's products, once all earlier ones are there.
enum class Before : int {
  kNothing,
  kGather,              // writes down the inputs
  kDrawActions,         // from the policy's head; also the critics' values
  kTemporalDifference,  // y, and from it the gradients of the critics' last hidden layers
  kValues,              // of the policy's actions, and the gradients of the same layers
  kHeadGradients,       // of the policy's head, from those of its action
};

// The order is: norms, `before`, norms on the way back, products.
struct alignas(16) RowsStep {
  Before before = Before::kNothing;
  int first_job = 0;
  int tiles = 0, inverse_tiles = 0;  // most of a job; 65536 / tiles, rounded up
  int num_tasks = 0;                 // jobs * tiles
  int everywhere = 0;                // 1: outputs go to all thread blocks of the cluster
  int bytes = 0;                     // of all outputs then
  int first_norm = 0, num_norms = 0, num_norms_back = 0;  // those back follow the others
};

inline constexpr int kMaxSteps = 2 * kLayersOfBoth, kMaxJobs = 4 * kLayersOfBoth,
                     kMaxNorms = 4 * kLayersOfBoth;

// Where things are in shared memory, in floats from its beginning; -1: nowhere.
struct RowsLayout {
  int steps = 0, jobs = 0, norms = 0;             // copies of the program
  int barriers = 0;                               // [steps] of 8 bytes
  int s_a = 0, next_s_a = 0, input_stride = 0;    // rows of inputs
  int head = 0, head_parts = 1, head_stride = 0;  // two of rows: of the policy, in s' and in s
  int value_head = 0, value_width = 0;  // last weights of value functions, up to [4, width]
  int values = 0;                       // of these, [4, kTileRows]
  int value_gradient = 0;               // [2, kTileRows]
  int log_prob = 0;                     // [2, kTileRows, action_size]
  int last_hidden = 0, last_gradient = 0, hidden_stride = 0;     // of both critics
  int action_gradient = 0, action_parts = 1, action_stride = 0;  // of both critics
  int head_gradient = 0, head_gradient_width = 0, head_gradient_stride = 0;
  int target_hidden = 0;  // last hidden layers of both targets
  int transitions = 0;    // [kTileRows]
  int size = 0;           // of it all
};

struct RowsProgram {
  RowsStep steps[kMaxSteps];
  ProductJob jobs[kMaxJobs];
  NormJob norms[kMaxNorms];
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROW_STEPS_H_
