#include "learner/fused/rows_kernel.cuh"
#include "learner/fused/sac_kernels.h"

namespace troupe {
namespace {

// s and the policy's action.
template <bool kExact>
__device__ void LoadInputs(const RowsArgs& args, const RowCluster& cluster) {
  const int row = threadIdx.x / 32, b = cluster.first_row + row;
#pragma unroll 2
  for (int i = threadIdx.x % 32; i < args.input_width; i += 32) {
    const int element = i - args.observation_size;
    Shared(args.layout.s_a)[SharedPlace(row, i, args.layout.input_stride)] =
        element >= 0 && element < args.action_size
            ? Rounded<kExact>(args.action[b * args.action_size + element])
            : args.x[OutputPlace(b, i, args.input_width)];
  }
}

// The gradients of J_pi = mean(alpha log pi - Q) in both values.
__device__ void ValueGradients(const RowsArgs& args, const RowCluster& cluster, int row) {
  const int b = cluster.first_row + row;
  const float* const values = Shared(args.layout.values) + row;
  const float q[2] = {values[0], values[kTileRows]};
  float aggregate = 0;
  for (int j = 0; j < 2; ++j) {
    const float share = b < args.batch_size ? ShareOfCritic(q[j], q[1 - j], args.mean_critic) : 0;
    aggregate += share * q[j];
    Shared(args.layout.value_gradient)[j * kTileRows + row] =
        -share / static_cast<float>(args.whole_batch);
  }
  const float alpha = args.has_entropy ? expf(*args.log_alpha) : 0;
  if (cluster.rank == 0) args.actor_loss[b] = alpha * args.log_pi[b] - aggregate;
}

template <bool kExact>
__device__ void Values(const RowsArgs& args, const RowCluster& cluster) {
  const RowsLayout& layout = args.layout;
  ValuesOfRows(args, 0, layout.last_hidden);
  __syncthreads();
  if (threadIdx.x < kTileRows) ValueGradients(args, cluster, threadIdx.x);
  __syncthreads();
  GradientsOfLastHidden<kExact>(args, cluster, 0, nullptr);
  __syncthreads();
}

// From the gradients of the action to those of its mean and log sigma.
template <bool kExact>
__device__ void HeadGradients(const RowsArgs& args, const RowCluster& cluster) {
  const RowsLayout& layout = args.layout;
  const int size = args.action_size, row = threadIdx.x / 32, b = cluster.first_row + row;
  const float log_prob_gradient =
      (args.has_entropy ? expf(*args.log_alpha) : 0) / static_cast<float>(args.whole_batch);
  const float* const slopes = Shared(layout.action_gradient);
  float* const gradients = Shared(layout.head_gradient);
  const auto place = [&](int i) { return SharedPlace(row, i, layout.head_gradient_stride); };
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < layout.head_gradient_width; i += 32) {
    if (i >= 2 * size || b >= args.batch_size) gradients[place(i)] = 0;
    if (i >= size || b >= args.batch_size) continue;
    const int element = b * size + i;
    const int slope =
        SharedPlace(row, args.observation_size % kTileColumns + i, layout.action_stride);
    const HeadGradient gradient =
        SquashGradient(args.action[element], args.spread[element], args.is_free[element],
                       SumOfParts(slopes + slope, 2 * layout.action_parts, layout.action_stride),
                       log_prob_gradient);
    gradients[place(i)] = Rounded<kExact>(gradient.mean);
    gradients[place(size + i)] = Rounded<kExact>(gradient.log_std);
  }
  __syncthreads();
  if (!cluster.Writes(row)) return;
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < args.head_width; i += 32) {
    args.head_d[GradientPlace(b, i, args.head_width)] = i < 2 * size ? gradients[place(i)] : 0;
  }
}

template <bool kExact>
__global__ void __launch_bounds__(kRowThreads, 1) ActorRows(const __grid_constant__ RowsArgs args) {
  const RowCluster cluster(args.cluster_size);
  // The kernel before this one writes nothing but parameters.
  if (!args.overlaps) AwaitPreviousKernel();
  LoadInputs<kExact>(args, cluster);
  Begin(args, cluster);
  if (args.overlaps) AwaitPreviousKernel();
  LoadValueHeads(args, 2);
  __syncthreads();
  RunProgram<kExact>(args, cluster, [&](Before before) {
    if (before == Before::kValues) Values<kExact>(args, cluster);
    if (before == Before::kHeadGradients) HeadGradients<kExact>(args, cluster);
  });
  // Nobody reads these before the next kernel.
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    ++args.counters->actor_steps;
    if (args.automatic_temperature) ++args.counters->alpha_steps;
  }
}

}  // namespace

cudaError_t PrepareActorRows(int bytes) {
  const cudaError_t error =
      cudaFuncSetAttribute(ActorRows<false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(ActorRows<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

cudaError_t LaunchActorRows(const RowsArgs& args, const LaunchOptions& options,
                            cudaStream_t stream) {
  const RowsLaunch launch(args, options, stream);
  return cudaLaunchKernelEx(&launch.config, options.exact ? ActorRows<true> : ActorRows<false>,
                            args);
}

}  // namespace troupe
