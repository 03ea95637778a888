#ifndef TROUPE_LEARNER_FUSED_PPO_TASK_H_
#define TROUPE_LEARNER_FUSED_PPO_TASK_H_

#include <cstdint>

#include "learner/fused/ppo_formulas.h"
#include "learner/fused/sac_formulas.h"

namespace troupe {

// What the kernels of ppo_program.h work on: numbers, and pointers into the memory of the machine
// that executes them, which does not change from one batch to the next.

inline constexpr int kMaxPpoLayers = 9;
// Of an action of choices.
inline constexpr int kMaxPpoElements = 32;

// Layer by layer as FlatNetwork has it.
struct PpoLayer {
  int32_t k, n;           // inputs, outputs
  int32_t weights, bias;  // offsets
};

// A network with all that is learned of it; a Gaussian's log standard deviations lie behind it.
struct PpoPart {
  int32_t num_layers = 0;
  PpoLayer layers[kMaxPpoLayers] = {};
  HiddenUnit unit = HiddenUnit::kTanh;
  int32_t network_size = 0, size = 0;  // floats, without and with what lies behind the network
  float *values = nullptr, *m = nullptr, *v = nullptr;
  float* gradient = nullptr;  // see PpoTask::sums
  float* partial = nullptr;   // [row blocks, size], a block's part of the gradient
};

// What is added up over the rows of a minibatch, parts of means; the entropy is the policy's.
enum { kSurrogateSum, kValueLossSum, kKlSum, kClippedSum, kEntropySum, kNumPpoSums };

// What changes from batch to batch.
struct PpoRun {
  int64_t rows = 0, minibatches = 0;          // of an epoch
  int64_t actor_steps = 0, critic_steps = 0;  // of Adam, before the batch
  float learning_rate = 0;
};

// What became of it.
struct PpoOutcome {
  int64_t epoch = -1;  // that is under way
  int64_t steps = 0, last_epoch_steps = 0;
  double sums[kNumPpoSums] = {};  // over the last epoch's minibatches
  int32_t stopped = 0;            // the KL was above max_kl
};

struct PpoTask {
  PpoPart actor, critic;
  int32_t observation_size = 0, action_size = 0;
  int32_t discrete = 0;                       // the head says logits of choices
  int32_t num_choices[kMaxPpoElements] = {};  // of each element then
  // Settings.
  PpoSurrogate surrogate = PpoSurrogate::kClip;
  double clip_epsilon = 0, value_clip = 0, value_coefficient = 0, entropy_coefficient = 0;
  double max_kl = 0, max_gradient_norm = 0;
  float adam_epsilon = 0;
  // The batch.
  const float *s = nullptr, *a = nullptr, *log_mu = nullptr, *advantage = nullptr,
              *target = nullptr, *v_old = nullptr;
  const int32_t* order = nullptr;          // [epochs, rows]
  const WholeMinibatch* wholes = nullptr;  // [epochs, minibatches]
  const PpoRun* run = nullptr;
  PpoOutcome* outcome = nullptr;
  // Blocks that differentiate rows, of each network, and those that add up their gradients.
  int32_t row_blocks = 0, sum_blocks = 0;
  int32_t tile_rows = 0;       // rows that pass through a block together
  double* row_sums = nullptr;  // [row_blocks, kNumPpoSums]
  // A minibatch's, behind the critic's gradient, which lies behind the actor's: what ranks add up.
  float* sums = nullptr;
  double* squares = nullptr;  // [sum_blocks], parts of the gradient's squared norm
};

// Floats from the actor's gradient to the end of the sums.
inline int64_t PpoSharedFloats(const PpoTask& task) {
  return int64_t{task.actor.size} + task.critic.size + kNumPpoSums;
}

// Bytes of memory that the threads of a block of PpoRows share: of the rows of a tile what they add
// up, the inputs, all layers' outputs, and two layers' gradients.
inline int64_t PpoSharedBytes(const PpoTask& task, int64_t tile_rows) {
  int64_t most = 0;
  for (const PpoPart* part : {&task.actor, &task.critic}) {
    int64_t floats = task.observation_size, widest = 0;
    for (int l = 0; l < part->num_layers; ++l) {
      floats += part->layers[l].n;
      widest = part->layers[l].n > widest ? part->layers[l].n : widest;
    }
    floats += 2 * widest;
    most = floats > most ? floats : most;
  }
  return tile_rows * ((kNumPpoSums + 1) * static_cast<int64_t>(sizeof(double)) +
                      most * static_cast<int64_t>(sizeof(float)));
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_TASK_H_
