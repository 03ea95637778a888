#ifndef TROUPE_LEARNER_FUSED_PPO_PROGRAM_H_
#define TROUPE_LEARNER_FUSED_PPO_PROGRAM_H_

#include "learner/fused/ppo_tile.h"

namespace troupe {

// The kernels of PPO's fused engine for GPUs, as programs for one thread of a block of threads.
//
// `Block` says which thread it is: index, blocks, thread, threads; Sync() waits for the block's
// other threads; shared is memory that they share.  A GPU has such blocks, and so has a test, which
// executes the same programs on a machine without one.  A minibatch is PpoRows, PpoSum, PpoSquares,
// PpoDescend, one after another.  With ranks PpoSharedFloats() floats are summed over them between
// PpoSum and PpoSquares.  Nothing is added up in an order that could change.

// Whether the actor's blocks, or the critic's, add up this sum.
TROUPE_DEVICE inline bool IsOfPart(int sum, bool actor) { return (sum == kValueLossSum) != actor; }

TROUPE_DEVICE inline double EntropyOf(const PpoTask& task) {
  double entropy = 0;  // that of choices is added up row by row
  for (int j = 0; j < (task.discrete ? 0 : task.action_size); ++j) {
    entropy += task.actor.values[task.actor.network_size + j] + 1.41893853320467274;
  }
  return entropy;  // each element's: log sigma + (1 + log(2 pi)) / 2
}

// Kernel 1: the first task.row_blocks blocks differentiate rows by the actor's parameters, as many
// others by the critic's.
template <typename Block>
TROUPE_DEVICE void PpoRows(const Block& block, const PpoTask& task, int minibatch) {
  const PpoMinibatch b = MinibatchOf(task, minibatch);
  if (b.rows == 0) return;
  const bool is_actor = block.index < task.row_blocks;
  const PpoPart& part = is_actor ? task.actor : task.critic;
  const int mine = block.index % task.row_blocks;
  const PpoTile tile = TileIn(block, task, part);
  float* const gradient = part.partial + static_cast<int64_t>(mine) * part.size;
  const int stride = task.row_blocks * task.tile_rows;
  double sums[kNumPpoSums] = {};
  if (block.index == 0) sums[kEntropySum] = b.share() * EntropyOf(task);
  bool add = false;
  for (int64_t begin = mine * task.tile_rows; begin < b.rows; begin += stride) {
    const int rows =
        static_cast<int>(b.rows - begin < task.tile_rows ? b.rows - begin : task.tile_rows);
    PpoDifferentiate(block, task, part, tile, b.order + begin, rows, b.whole, add, gradient);
    add = true;
    for (int row = 0; row < rows && block.thread == 0; ++row) {
      for (int i = 0; i < kNumPpoSums; ++i) {
        if (IsOfPart(i, is_actor)) sums[i] += tile.sums[row * kNumPpoSums + i];
      }
    }
    block.Sync();
  }
  if (!add) {  // there are fewer tiles than blocks
    for (int i = block.thread; i < part.size; i += block.threads) gradient[i] = 0;
  }
  if (block.thread != 0) return;
  double* const to = task.row_sums + mine * kNumPpoSums;
  for (int i = 0; i < kNumPpoSums; ++i) {
    if (IsOfPart(i, is_actor)) to[i] = sums[i];
  }
}

// Calls f(part, i) for this thread's parameters of both networks.
template <typename Block, typename Function>
TROUPE_DEVICE void ForMyParameters(const Block& block, const PpoTask& task, const Function& f) {
  const int all = task.actor.size + task.critic.size;
  for (int i = block.index * block.threads + block.thread; i < all;
       i += block.blocks * block.threads) {
    if (i < task.actor.size) {
      f(task.actor, i);
    } else {
      f(task.critic, i - task.actor.size);
    }
  }
}

// Kernel 2, task.sum_blocks blocks: gradient and losses are the sums of all blocks' parts.
template <typename Block>
TROUPE_DEVICE void PpoSum(const Block& block, const PpoTask& task, int minibatch) {
  const PpoMinibatch b = MinibatchOf(task, minibatch);
  if (b.rows == 0) return;
  ForMyParameters(block, task, [&](const PpoPart& part, int i) {
    float sum =
        i < part.network_size ? 0 : static_cast<float>(-b.share() * task.entropy_coefficient);
    for (int from = 0; from < task.row_blocks; ++from) {
      sum += part.partial[static_cast<int64_t>(from) * part.size + i];
    }
    part.gradient[i] = sum;
  });
  if (block.index != 0) return;
  for (int i = block.thread; i < kNumPpoSums; i += block.threads) {
    double sum = 0;
    for (int from = 0; from < task.row_blocks; ++from) {
      sum += task.row_sums[from * kNumPpoSums + i];
    }
    task.sums[i] = static_cast<float>(sum);
  }
}

// Kernel 3, the same blocks, of which each thread reads what it wrote in kernel 2 or, with ranks,
// what they have made of it: the gradient's squared norm.
template <typename Block>
TROUPE_DEVICE void PpoSquares(const Block& block, const PpoTask& task, int minibatch) {
  if (MinibatchOf(task, minibatch).rows == 0) return;
  double squares = 0;
  ForMyParameters(block, task, [&](const PpoPart& part, int i) {
    squares += static_cast<double>(part.gradient[i]) * part.gradient[i];
  });
  squares = SumOverBlock(block, squares, block.shared);
  if (block.thread == 0) task.squares[block.index] = squares;
}

// By one thread alone.
TROUPE_DEVICE inline void NoteOutcome(const float* sums, bool too_far, PpoOutcome& outcome) {
  if (too_far) {
    outcome.stopped = 1;
    return;
  }
  ++outcome.steps;
  ++outcome.last_epoch_steps;
  for (int i = 0; i < kNumPpoSums; ++i) outcome.sums[i] += sums[i];
}

// Kernel 4, the same blocks: Adam.  One thread also notes the outcome, of which the others read
// only what it leaves alone: a minibatch's number says how many steps there were before, and once
// the policy is too far it stays so: its sums stay or, as ranks go on adding them up, grow.
template <typename Block>
TROUPE_DEVICE void PpoDescend(const Block& block, const PpoTask& task, int minibatch) {
  const PpoRun& run = *task.run;
  if (minibatch >= run.minibatches) return;
  double squares = 0;
  for (int i = block.thread; i < task.sum_blocks; i += block.threads) squares += task.squares[i];
  const double norm = sqrt(SumOverBlock(block, squares, block.shared));
  const bool too_far = task.max_kl > 0 && task.sums[kKlSum] > task.max_kl;
  if (block.index == 0 && block.thread == 0) NoteOutcome(task.sums, too_far, *task.outcome);
  if (too_far) return;
  const bool too_long = task.max_gradient_norm > 0 && norm > task.max_gradient_norm;
  const float factor = too_long ? static_cast<float>(task.max_gradient_norm / (norm + 1e-6)) : 1;
  const int64_t step = task.outcome->epoch * run.minibatches + minibatch + 1;
  const AdamSizes of_actor = AdamSizesOf(run.learning_rate, run.actor_steps + step),
                  of_critic = AdamSizesOf(run.learning_rate, run.critic_steps + step);
  ForMyParameters(block, task, [&](const PpoPart& part, int i) {
    part.values[i] =
        AdamStep(&part == &task.actor ? of_actor : of_critic, factor * part.gradient[i],
                 part.values[i], part.m[i], part.v[i], task.adam_epsilon);
  });
}

// Before the kernels of an epoch; one thread.
TROUPE_DEVICE inline void PpoBeginEpoch(const PpoTask& task) {
  PpoOutcome& outcome = *task.outcome;
  if (outcome.stopped) return;
  ++outcome.epoch;
  outcome.last_epoch_steps = 0;
  for (double& sum : outcome.sums) sum = 0;
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_PROGRAM_H_
