#ifndef TROUPE_LEARNER_FUSED_SAC_KERNELS_H_
#define TROUPE_LEARNER_FUSED_SAC_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "learner/fused/packed_network.h"
#include "learner/fused/row_steps.h"
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
  const float* noise = nullptr;   // [2, whole batch, action_size], of a' and a; null: drawn
};

struct SacCounters {
  uint64_t seed = 0, updates = 0;  // key and counter of the draws
  int64_t critic_steps = 0, actor_steps = 0, alpha_steps = 0;
};

struct DeviceStatistics {
  float q_loss, q_mean, alpha, actor_loss, entropy;
};

// A vector of parameters with Adam's moments, in the GPU's memory, its transposed copies and, where
// ranks share an update, the gradient.
struct DeviceVector {
  float *values = nullptr, *m = nullptr, *v = nullptr, *transposed = nullptr, *gradient = nullptr;
};

// Arguments of the kernels over rows.  All pointers are to the GPU's memory.  Arrays of rows have
// `padded_batch` of them, a multiple of kTileRows.
struct RowsArgs {
  const RowsProgram* program;
  int num_steps, num_jobs, num_norms;
  RowsLayout layout;
  int observation_size, action_size, batch_size, padded_batch;
  int whole_batch, first_of_batch;  // rows of all ranks, and of those before this one
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
  // Gradients: of the last hidden layers, [2, padded_batch, value_width], or null where LayerNorm
  // comes between; of the values, [2,
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
  const float* norm_sums;   // NormJob::sums of the layer; null: it has no LayerNorm
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
  bool overlaps;                // with the kernel before it
  int batch_size, whole_batch;  // here, and of all ranks
  float* sums;  // [2], of the first and second numbers below over the rows; behind the gradient
  SacCounters* counters;
  DeviceStatistics* statistics;
  const float *squared_error, *q_sum;  // DescendCritics
  const float *log_pi, *actor_loss;    // DescendActor
  float* log_alpha;                    // value, m, v
  float alpha_learning_rate, target_entropy;
  bool automatic_temperature, has_entropy;
};

// What the kernels that descend do of their two parts: where ranks share an update, the gradient
// is summed over them in between.
enum class DescendPart { kBoth, kGradient, kStep };

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
cudaError_t LaunchDescendCritics(const DescendArgs& args, DescendPart part,
                                 const LaunchOptions& options, cudaStream_t stream);
cudaError_t LaunchDescendActor(const DescendArgs& args, DescendPart part,
                               const LaunchOptions& options, cudaStream_t stream);
// *view = value, in the order of the stream.
cudaError_t LaunchSetView(TransitionView* view, const TransitionView& value, cudaStream_t stream);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_SAC_KERNELS_H_
