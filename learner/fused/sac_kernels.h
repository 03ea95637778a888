#ifndef TROUPE_LEARNER_FUSED_SAC_KERNELS_H_
#define TROUPE_LEARNER_FUSED_SAC_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "learner/fused/packed_network.h"
#include "learner/fused/sac_formulas.h"

namespace troupe {

// SAC's update as four kernels:
//   CriticRows     for each transition: y, both critics, and the gradients of their activations
//   DescendCritics gradients of the critics' parameters, Adam, Polyak averaging
//   ActorRows      for each transition: both new critics at the policy's action, and the gradients
//                  of the policy's activations
//   DescendActor   gradients of the policy's parameters and of the temperature, Adam
// The first and third go through all layers without leaving the chip: a cluster of thread blocks
// takes 16 rows, each block computes a part of every layer's outputs and writes them into the
// shared memory of all.  The other two sum over the rows, a block for each 32 x 32 parameters.
// All sums are in a fixed order, so that the same numbers come out every time.

inline constexpr int kTileRows = 16;
inline constexpr int kMaxClusterSize = 4;

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
inline constexpr int kLayersOfBoth = 2 * kMaxLayers;

// A transition of a replica; ReplicaTransition as the GPU sees it.
struct alignas(16) DeviceTransition {
  uint32_t state_slot, next_slot;
  float reward, discount;
};

// What the next update learns from; in the GPU's memory, so that a captured graph stays valid.
struct TransitionView {
  const float* rows = nullptr;                    // [capacity, observation_size + action_size]
  const DeviceTransition* transitions = nullptr;  // [capacity]
  uint32_t capacity = 0;
  uint32_t first = 0, count = 0;  // slots that may be drawn, from `first` on and round the ring
  uint32_t in_order = 0;          // 1: transitions 0, 1, 2, ..., not drawn
  const float* noise = nullptr;   // [2, batch, action_size], of a' and a; null: drawn
};

struct SacCounters {
  uint64_t seed = 0, updates = 0;  // key and counter of the draws
  int64_t critic_steps = 0, actor_steps = 0, alpha_steps = 0;
};

struct DeviceStatistics {
  float q_loss, q_mean, alpha, actor_loss, entropy;
};

// A vector of parameters with Adam's moments, in the GPU's memory, and its transposed copies.
struct DeviceVector {
  float *values = nullptr, *m = nullptr, *v = nullptr, *transposed = nullptr;
};

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

// What is done before a step's products, once all earlier ones are there.
enum class Before : int {
  kNothing,
  kGather,              // writes down the inputs
  kDrawActions,         // from the policy's head; also the critics' values
  kTemporalDifference,  // y, and from it the gradients of the critics' last hidden layers
  kValues,              // of the policy's actions, and the gradients of the same layers
  kHeadGradients,       // of the policy's head, from those of its action
};

struct alignas(16) RowsStep {
  Before before = Before::kNothing;
  int first_job = 0;
  int tiles = 0, inverse_tiles = 0;  // most of a job; 65536 / tiles, rounded up
  int num_tasks = 0;                 // jobs * tiles
  int everywhere = 0;                // 1: outputs go to all thread blocks of the cluster
  int bytes = 0;                     // of all outputs then
  int unused = 0;
};

inline constexpr int kMaxSteps = 2 * kLayersOfBoth, kMaxJobs = 4 * kLayersOfBoth;

// Where things are in shared memory, in floats from its beginning; -1: nowhere.
struct RowsLayout {
  int steps = 0, jobs = 0;                        // copies of the program
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
};

// Arguments of the kernels over rows.  All pointers are to the GPU's memory.  Arrays of rows have
// `padded_batch` of them, a multiple of kTileRows.
struct RowsArgs {
  const RowsProgram* program;
  int num_steps, num_jobs;
  RowsLayout layout;
  int observation_size, action_size, batch_size, padded_batch, num_hidden;
  int cluster_size;
  HiddenUnit critic_unit;
  float log_std_min, log_std_max;
  bool has_entropy, backup_entropy, mean_critic, automatic_temperature;
  bool overlaps;  // with the kernel before it, which is that of LaunchUpdate's order

  const TransitionView* view;
  SacCounters* counters;
  const float* log_alpha;
  // The last layers of the value functions: packed weights, then the bias.
  const float* value_heads[4];
  const float* value_biases[4];

  float* x;  // [padded_batch, input_width]: s and a
  int input_width;
  // Gradients: of the last hidden layers, [2, padded_batch, value_width]; of the values, [2,
  // padded_batch, kHeadPadding], in the first column; of the policy's head, [padded_batch,
  // head_width].
  float *last_critic_d, *value_d, *head_d;
  int head_width;

  // Of the policy's action in s, [padded_batch, action_size]: SquashedElement's.
  float *action, *spread, *is_free;
  // Of each row, [padded_batch]: log pi(a|s), and parts of the statistics.
  float *log_pi, *squared_error, *q_sum, *actor_loss;
};

// One layer whose parameters descend: gradient = sum over rows of x^T dy.
struct DescendJob {
  const float *x, *dy;      // outputs and gradients
  int x_stride, dy_stride;  // floats
  PackedLayer layer;
  DeviceVector vector;      // of the layer's network
  float* target;            // Polyak average of the network; null: none
  int first_tile, tiles_k;  // number of its first block of threads; blocks along k
};

struct DescendArgs {
  DescendJob jobs[kLayersOfBoth];
  int num_jobs, num_tiles;
  int row_tiles;      // to sum over, of kTileRows rows
  int parts;          // 1, 2, 4 or 8: thread blocks that share the rows of a tile
  int tiles_of_part;  // of kTileRows rows
  float learning_rate, tau;
  const int64_t* steps;  // of Adam, this one included

  // What one more block sums up.
  bool overlaps;  // with the kernel before it
  int batch_size;
  SacCounters* counters;
  DeviceStatistics* statistics;
  const float *squared_error, *q_sum;  // DescendCritics
  const float *log_pi, *actor_loss;    // DescendActor
  float* log_alpha;                    // value, m, v
  float alpha_learning_rate, target_entropy;
  bool automatic_temperature, has_entropy;
};

// How the kernels are launched.
struct LaunchOptions {
  bool exact = false;    // products in three steps of tf32, as good as float32; else in one
  bool overlap = false;  // a kernel may begin before the one before it has ended
};

// Allows the kernels over rows so much shared memory.
cudaError_t PrepareKernels(int critic_rows_bytes, int actor_rows_bytes);
// How many clusters of the size run at once.
cudaError_t CountActiveClusters(int bytes, int cluster_size, int* clusters);

cudaError_t LaunchCriticRows(const RowsArgs& args, const LaunchOptions& options,
                             cudaStream_t stream);
cudaError_t LaunchActorRows(const RowsArgs& args, const LaunchOptions& options,
                            cudaStream_t stream);
cudaError_t LaunchDescendCritics(const DescendArgs& args, const LaunchOptions& options,
                                 cudaStream_t stream);
cudaError_t LaunchDescendActor(const DescendArgs& args, const LaunchOptions& options,
                               cudaStream_t stream);
// *view = value, in the order of the stream.
cudaError_t LaunchSetView(TransitionView* view, const TransitionView& value, cudaStream_t stream);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_SAC_KERNELS_H_
