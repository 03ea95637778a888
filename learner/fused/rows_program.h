#ifndef TROUPE_LEARNER_FUSED_ROWS_PROGRAM_H_
#define TROUPE_LEARNER_FUSED_ROWS_PROGRAM_H_

#include "learner/fused/packed_network.h"
#include "learner/fused/sac_kernels.h"

namespace troupe {

// What LayerNorm of a layer leaves for its way back, and what that leaves: see NormJob.
struct NormRows {
  float *normalized = nullptr, *scale = nullptr, *sums = nullptr;
};

// The networks in the GPU's memory, and what their passes leave there: outputs of the hidden layers
// and gradients of all layers' outputs before the activation; of the critics [2, padded_batch,
// width], of the policy [padded_batch, width].
struct DeviceNetworks {
  PackedNetwork actor_network, critic_network;
  HiddenUnit actor_unit = HiddenUnit::kRelu, critic_unit = HiddenUnit::kRelu;
  DeviceVector actor, critics;  // critics: both, one after another
  float* target_critics = nullptr;
  float *critic_h[kMaxLayers] = {}, *critic_d[kMaxLayers] = {};
  float *actor_h[kMaxLayers] = {}, *actor_d[kMaxLayers] = {};
  NormRows critic_norm[kMaxLayers], actor_norm[kMaxLayers];  // of both critics as above
};

// A program, and where it puts things; RowsArgs::layout, num_steps, num_jobs and num_norms.
struct BuiltProgram {
  RowsProgram program;
  RowsLayout layout;
  int num_steps = 0, num_jobs = 0, num_norms = 0;
};

// What CriticRows and ActorRows do; shared jobs have the tiles of all thread blocks of a cluster.
// A layer's outputs go to the next of a few places in turn: one thread block may be a step ahead of
// another, and must not write where that one still reads.
BuiltProgram CriticRowsProgram(const DeviceNetworks& networks, int action_size, int padded_batch);
BuiltProgram ActorRowsProgram(const DeviceNetworks& networks, int observation_size, int action_size,
                              int padded_batch);
// Once, when the size of a cluster is known: deals out the tiles of shared jobs.
void ShareTiles(int cluster_size, BuiltProgram& built);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_ROWS_PROGRAM_H_
