#include "learner/fused/rows_kernel.cuh"
#include "learner/fused/sac_kernels.h"

namespace troupe {
namespace {

// In layout.values: the two targets, then the two critics.
constexpr int kFirstTarget = 0, kFirstCritic = 2;

__device__ DeviceTransition* Transitions(const RowsArgs& args) {
  return reinterpret_cast<DeviceTransition*>(Shared(args.layout.transitions));
}

__device__ void DrawTransition(const RowsArgs& args, const RowCluster& cluster, int row) {
  const TransitionView& view = *args.view;
  const int b = min(cluster.first_row + row, args.batch_size - 1);
  uint32_t slot = b;
  if (view.in_order == 0) {
    const RandomWords words =
        DrawWords(args.counters->seed, args.counters->updates, Draw::kTransition,
                  static_cast<uint32_t>(args.first_of_batch + b));
    slot = view.first + static_cast<uint32_t>(DrawBelow(words, view.count));
    if (slot < view.first || slot >= view.capacity) slot -= view.capacity;
  }
  Transitions(args)[row] = view.transitions[slot];
}

template <bool kExact>
__device__ void Gather(const RowsArgs& args) {
  const RowsLayout& layout = args.layout;
  const int observation = args.observation_size, floats = observation + args.action_size;
  const int row = threadIdx.x / 32;
  const DeviceTransition transition = Transitions(args)[row];
  const float* const s = args.view->rows + int64_t{transition.state_slot} * floats;
  const float* const next = args.view->rows + int64_t{transition.next_slot} * floats;
#pragma unroll 2
  for (int i = threadIdx.x % 32; i < args.input_width; i += 32) {
    const int place = SharedPlace(row, i, layout.input_stride);
    Shared(layout.s_a)[place] = i < floats ? Rounded<kExact>(s[i]) : 0;
    Shared(layout.next_s_a)[place] = i < observation ? Rounded<kExact>(next[i]) : 0;
  }
}

// Writes down the critics' inputs, for the sums over rows.
__device__ void KeepInputs(const RowsArgs& args, const RowCluster& cluster) {
  const int row = threadIdx.x / 32;
  if (!cluster.Writes(row)) return;
#pragma unroll 2
  for (int i = threadIdx.x % 32; i < args.input_width; i += 32) {
    args.x[OutputPlace(cluster.first_row + row, i, args.input_width)] =
        Shared(args.layout.s_a)[SharedPlace(row, i, args.layout.input_stride)];
  }
}

// The noise of an element of an action, where log_prob will be.
__device__ void DrawNoise(const RowsArgs& args, const RowCluster& cluster) {
  const int size = args.action_size, all = args.whole_batch * size;
  const int first = (args.first_of_batch + cluster.first_row) * size;
  const int end = (args.first_of_batch + args.batch_size) * size;
  const float* const noise = args.view->noise;
  // Half of the threads for a', half for a.
  const int j = threadIdx.x >= kRowThreads / 2 ? 1 : 0;
#pragma unroll 1
  for (int e = threadIdx.x % (kRowThreads / 2); e < kTileRows * size; e += kRowThreads / 2) {
    const int element = first + e;
    float z = 0;
    if (element < end && noise != nullptr) {
      z = noise[j * all + element];
    } else if (element < end) {
      z = DrawNormal(DrawWords(args.counters->seed, args.counters->updates,
                               j == 0 ? Draw::kNextAction : Draw::kAction,
                               static_cast<uint32_t>(element)));
    }
    Shared(args.layout.log_prob)[j * kTileRows * size + e] = z;
  }
}

// One element of a' in s' (j = 0), or of a in s (j = 1).
template <bool kExact>
__device__ void DrawElement(const RowsArgs& args, const RowCluster& cluster, int j, int row,
                            int i) {
  const RowsLayout& layout = args.layout;
  const int size = args.action_size, element = (cluster.first_row + row) * size + i;
  float& log_prob = Shared(layout.log_prob)[(j * kTileRows + row) * size + i];
  const float z = log_prob;
  const int stride = layout.head_stride, parts = layout.head_parts;
  const float* const head = Shared(layout.head) + j * parts * (kTileRows / 2) * stride;
  const SquashedElement drawn =
      SquashElement(SumOfParts(head + SharedPlace(row, i, stride), parts, stride),
                    SumOfParts(head + SharedPlace(row, size + i, stride), parts, stride), z,
                    args.log_std_min, args.log_std_max);
  log_prob = drawn.log_prob;
  if (j == 0) {
    Shared(layout.next_s_a)[SharedPlace(row, args.observation_size + i, layout.input_stride)] =
        Rounded<kExact>(drawn.action);
  } else if (cluster.Writes(row)) {
    args.action[element] = drawn.action;
    args.spread[element] = drawn.spread;
    args.is_free[element] = drawn.is_free;
  }
}

template <bool kExact>
__device__ void DrawActions(const RowsArgs& args, const RowCluster& cluster) {
  const RowsLayout& layout = args.layout;
  ValuesOfRows(args, kFirstCritic, layout.last_hidden);
  // Half of the threads for each of both.
  const int j = threadIdx.x >= kRowThreads / 2 ? 1 : 0, elements = kTileRows * args.action_size;
#pragma unroll 1
  for (int e = threadIdx.x % (kRowThreads / 2); e < elements; e += kRowThreads / 2) {
    DrawElement<kExact>(args, cluster, j, e / args.action_size, e % args.action_size);
  }
  __syncthreads();
}

__device__ float LogProbOfRow(const RowsArgs& args, int j, int row) {
  const float* const terms =
      Shared(args.layout.log_prob) + (j * kTileRows + row) * args.action_size;
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < args.action_size; ++i) sum += terms[i];
  return sum;
}

// y, and the gradients of J_Q = sum_i (Q_i - y)^2 / (2 B) in both values.
template <bool kExact>
__device__ void ValueGradients(const RowsArgs& args, const RowCluster& cluster, int row) {
  const int b = cluster.first_row + row;
  const float* const values = Shared(args.layout.values) + row;
  const float q[2] = {values[kFirstCritic * kTileRows], values[(kFirstCritic + 1) * kTileRows]};
  const float q_next =
      fminf(values[kFirstTarget * kTileRows], values[(kFirstTarget + 1) * kTileRows]);
  const float alpha = args.has_entropy && args.backup_entropy ? expf(*args.log_alpha) : 0;
  const DeviceTransition& transition = Transitions(args)[row];
  const float y = SoftTargetOf(transition.reward, transition.discount, q_next, alpha,
                               LogProbOfRow(args, 0, row));
  float squared_error = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float error = b < args.batch_size ? q[i] - y : 0;
    const float gradient = error / static_cast<float>(args.whole_batch);
    squared_error += 0.5f * error * error;
    Shared(args.layout.value_gradient)[i * kTileRows + row] = gradient;
    if (cluster.rank == 0) {
      args.value_d[GradientPlace(i * args.padded_batch + b, 0, kHeadPadding)] =
          Rounded<kExact>(gradient);
    }
  }
  if (cluster.rank > 0) return;
  args.log_pi[b] = LogProbOfRow(args, 1, row);
  args.squared_error[b] = squared_error;
  args.q_sum[b] = q[0] + q[1];
}

template <bool kExact>
__device__ void TemporalDifference(const RowsArgs& args, const RowCluster& cluster) {
  const RowsLayout& layout = args.layout;
  ValuesOfRows(args, kFirstTarget, layout.target_hidden);
  __syncthreads();
  if (threadIdx.x < kTileRows) ValueGradients<kExact>(args, cluster, threadIdx.x);
  __syncthreads();
  GradientsOfLastHidden<kExact>(args, cluster, kFirstCritic, args.last_critic_d);
  __syncthreads();
}

template <bool kExact>
__global__ void __launch_bounds__(kRowThreads, 1)
    CriticRows(const __grid_constant__ RowsArgs args) {
  const RowCluster cluster(args.cluster_size);
  // The kernel before this one writes none of what these read.
  if (!args.overlaps) AwaitPreviousKernel();
  if (threadIdx.x < kTileRows) DrawTransition(args, cluster, threadIdx.x);
  LoadValueHeads(args, 4);
  Begin(args, cluster);
  __syncthreads();
  Gather<kExact>(args);
  DrawNoise(args, cluster);
  if (args.overlaps) AwaitPreviousKernel();
  RunProgram<kExact>(args, cluster, [&](Before before) {
    if (before == Before::kGather) KeepInputs(args, cluster);
    if (before == Before::kDrawActions) DrawActions<kExact>(args, cluster);
    if (before == Before::kTemporalDifference) TemporalDifference<kExact>(args, cluster);
  });
  // Nobody reads it before the next kernel.
  if (blockIdx.x == 0 && threadIdx.x == 0) ++args.counters->critic_steps;
}

}  // namespace

cudaError_t PrepareCriticRows(int bytes) {
  const cudaError_t error =
      cudaFuncSetAttribute(CriticRows<false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(CriticRows<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

cudaError_t CountActiveClusters(int bytes, int cluster_size, int* clusters) {
  RowsArgs args = {};
  args.padded_batch = kTileRows;
  args.cluster_size = cluster_size;
  args.layout.size = bytes / static_cast<int>(sizeof(float));
  const RowsLaunch launch(args, {}, nullptr);
  return cudaOccupancyMaxActiveClusters(clusters, CriticRows<false>, &launch.config);
}

cudaError_t LaunchCriticRows(const RowsArgs& args, const LaunchOptions& options,
                             cudaStream_t stream) {
  const RowsLaunch launch(args, options, stream);
  return cudaLaunchKernelEx(&launch.config, options.exact ? CriticRows<true> : CriticRows<false>,
                            args);
}

}  // namespace troupe
