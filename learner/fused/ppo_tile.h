#ifndef TROUPE_LEARNER_FUSED_PPO_TILE_H_
#define TROUPE_LEARNER_FUSED_PPO_TILE_H_

#include <cmath>

#include "learner/fused/ppo_task.h"

#if defined(__CUDACC__)
#define TROUPE_DEVICE __device__
#else
#define TROUPE_DEVICE
#endif

namespace troupe {

// What a block of threads does with the rows of a tile, and how it adds up.  `Block`: see
// ppo_program.h.

// Called by every thread of a block; all get the sum.  `scratch`: a double a thread.
template <typename Block>
TROUPE_DEVICE double SumOverBlock(const Block& block, double value, double* scratch) {
  scratch[block.thread] = value;
  block.Sync();
  for (int half = block.threads / 2; half > 0; half /= 2) {
    if (block.thread < half) scratch[block.thread] += scratch[block.thread + half];
    block.Sync();
  }
  const double sum = scratch[0];
  block.Sync();
  return sum;
}

// The rows of a minibatch that are here, and what is to be known of all of it.
struct PpoMinibatch {
  const int32_t* order;
  int64_t rows;
  WholeMinibatch whole;

  TROUPE_DEVICE double share() const {
    return static_cast<double>(rows) / static_cast<double>(whole.rows);
  }
};

// Number `i` of the epoch that is under way; no rows: there is none, or no more steps are taken.
TROUPE_DEVICE inline PpoMinibatch MinibatchOf(const PpoTask& task, int i) {
  const PpoRun& run = *task.run;
  if (task.outcome->stopped || i >= run.minibatches) return {nullptr, 0, {}};
  const int64_t begin = i * run.rows / run.minibatches, end = (i + 1) * run.rows / run.minibatches;
  return {task.order + task.outcome->epoch * run.rows + begin, end - begin,
          task.wholes[task.outcome->epoch * run.minibatches + i]};
}

// The memory that a block of PpoRows shares; see PpoSharedBytes.
struct PpoTile {
  double* sums;   // [rows, kNumPpoSums], of each row
  double* slope;  // [rows], the loss's derivative by log pi
  float* h;       // the rows' inputs, then each layer's outputs
  float *d,
      *d_next;  // the loss's gradients by a layer's outputs before the unit, and by those below
};

template <typename Block>
TROUPE_DEVICE PpoTile TileIn(const Block& block, const PpoTask& task, const PpoPart& part) {
  PpoTile tile;
  tile.sums = block.shared;
  tile.slope = tile.sums + task.tile_rows * kNumPpoSums;
  tile.h = reinterpret_cast<float*>(tile.slope + task.tile_rows);
  int width = task.observation_size, widest = 0;
  for (int l = 0; l < part.num_layers; ++l) {
    width += part.layers[l].n;
    widest = part.layers[l].n > widest ? part.layers[l].n : widest;
  }
  tile.d = tile.h + task.tile_rows * width;
  tile.d_next = tile.d + task.tile_rows * widest;
  return tile;
}

// Where layer `l`'s inputs lie behind tile.h.
TROUPE_DEVICE inline float* InputsOf(const PpoTask& task, const PpoPart& part, const PpoTile& tile,
                                     int l) {
  float* at = tile.h;
  for (int i = 0; i < l; ++i) at += task.tile_rows * part.layers[i].k;
  return at;
}

// All layers' outputs of `rows` rows whose inputs are there.
template <typename Block>
TROUPE_DEVICE void PpoForward(const Block& block, const PpoTask& task, const PpoPart& part,
                              const PpoTile& tile, int rows) {
  for (int l = 0; l < part.num_layers; ++l) {
    const PpoLayer& layer = part.layers[l];
    const float* const x = InputsOf(task, part, tile, l);
    float* const y = InputsOf(task, part, tile, l + 1);
    const float *const w = part.values + layer.weights, *const bias = part.values + layer.bias;
    for (int i = block.thread; i < rows * layer.n; i += block.threads) {
      const int row = i / layer.n, column = i % layer.n;
      float sum = bias[column];
      for (int k = 0; k < layer.k; ++k) sum += x[row * layer.k + k] * w[k * layer.n + column];
      y[i] = l + 1 == part.num_layers ? sum : Activate(part.unit, sum);
    }
    block.Sync();
  }
}

// The gradient by layer l's weights, added to the block's part of it.
template <typename Block>
TROUPE_DEVICE void PpoLayerGradient(const Block& block, const PpoTask& task, const PpoPart& part,
                                    const PpoTile& tile, int l, int rows, bool add,
                                    float* gradient) {
  const PpoLayer& layer = part.layers[l];
  const float* const x = InputsOf(task, part, tile, l);
  for (int i = block.thread; i < (layer.k + 1) * layer.n; i += block.threads) {
    const int k = i / layer.n, column = i % layer.n;
    float sum = 0;
    for (int row = 0; row < rows; ++row) {
      const float input = k < layer.k ? x[row * layer.k + k] : 1;  // the bias is weighed by 1
      sum += input * tile.d[row * layer.n + column];
    }
    float* const to = gradient + (k < layer.k ? layer.weights + i : layer.bias + column);
    *to = add ? *to + sum : sum;
  }
}

// The gradient of the parameters by tile.d, which is that by the head's outputs.
template <typename Block>
TROUPE_DEVICE void PpoBackward(const Block& block, const PpoTask& task, const PpoPart& part,
                               PpoTile tile, int rows, bool add, float* gradient) {
  for (int l = part.num_layers - 1; l >= 0; --l) {
    const PpoLayer& layer = part.layers[l];
    PpoLayerGradient(block, task, part, tile, l, rows, add, gradient);
    if (l == 0) break;
    const float* const x = InputsOf(task, part, tile, l);
    const float* const w = part.values + layer.weights;
    for (int i = block.thread; i < rows * layer.k; i += block.threads) {
      const int row = i / layer.k, k = i % layer.k;
      float sum = 0;
      for (int column = 0; column < layer.n; ++column) {
        sum += tile.d[row * layer.n + column] * w[k * layer.n + column];
      }
      tile.d_next[i] = sum * ActivationSlope(part.unit, x[i]);
    }
    block.Sync();
    float* const spare = tile.d;
    tile.d = tile.d_next;
    tile.d_next = spare;
  }
  block.Sync();
}

// The loss of one row by its log pi, into row `row` of the tile.
TROUPE_DEVICE inline void PpoSurrogateRow(const PpoTask& task, const PpoTile& tile, int row,
                                          int32_t step, double log_pi,
                                          const WholeMinibatch& whole) {
  const double log_r = log_pi - task.log_mu[step], r = exp(log_r);
  const auto b = static_cast<double>(whole.rows);
  const SurrogateOfStep surrogate =
      SurrogateOf(task.surrogate, task.clip_epsilon, log_pi, r,
                  (task.advantage[step] - whole.scale.mean) * whole.scale.inverse_std);
  double* const sums = tile.sums + row * kNumPpoSums;
  sums[kSurrogateSum] = surrogate.value / b;
  sums[kKlSum] = (r - 1 - log_r) / b;
  sums[kEntropySum] = 0;
  sums[kClippedSum] = (r - 1 > task.clip_epsilon || 1 - r > task.clip_epsilon) ? 1 / b : 0;
  tile.slope[row] = -surrogate.slope / b;
}

// The same by the actor's head, [action_size] means, and the gradient by them.
TROUPE_DEVICE inline void PpoGaussianRow(const PpoTask& task, const PpoTile& tile,
                                         const float* means, int row, int32_t step,
                                         const WholeMinibatch& whole) {
  const int size = task.action_size;
  const float* const log_std = task.actor.values + task.actor.network_size;
  const float* const mean = means + row * size;
  double log_pi = 0;
  for (int j = 0; j < size; ++j) {
    const double z = (task.a[static_cast<int64_t>(step) * size + j] - mean[j]) *
                     exp(-static_cast<double>(log_std[j]));
    log_pi -= 0.5 * z * z + log_std[j] + 0.918938533204672742;  // log(2 pi) / 2
  }
  PpoSurrogateRow(task, tile, row, step, log_pi, whole);
  for (int j = 0; j < size; ++j) {
    const double inverse_std = exp(-static_cast<double>(log_std[j]));
    const double z = (task.a[static_cast<int64_t>(step) * size + j] - mean[j]) * inverse_std;
    tile.d[row * size + j] = static_cast<float>(tile.slope[row] * z * inverse_std);
  }
}

// The same by logits, element by element.
TROUPE_DEVICE inline void PpoChoiceRow(const PpoTask& task, const PpoTile& tile,
                                       const float* logits, int row, int32_t step,
                                       const WholeMinibatch& whole) {
  const auto b = static_cast<double>(whole.rows);
  const int head_size = task.actor.layers[task.actor.num_layers - 1].n;
  const float* const choices = task.a + static_cast<int64_t>(step) * task.action_size;
  const float* l = logits + row * head_size;
  double log_pi = 0, entropy = 0;
  for (int element = 0; element < task.action_size; ++element) {
    const SummaryOfLogits of = SummaryOf(l, task.num_choices[element]);
    log_pi += l[static_cast<int>(choices[element])] - of.log_sum;
    entropy += of.entropy;
    l += task.num_choices[element];
  }
  PpoSurrogateRow(task, tile, row, step, log_pi, whole);
  tile.sums[row * kNumPpoSums + kEntropySum] = entropy / b;
  l = logits + row * head_size;
  float* d = tile.d + row * head_size;
  for (int element = 0; element < task.action_size; ++element) {
    const int n = task.num_choices[element], choice = static_cast<int>(choices[element]);
    const SummaryOfLogits of = SummaryOf(l, n);
    for (int j = 0; j < n; ++j) {
      d[j] = static_cast<float>(
          SlopeByLogit(of, l[j], j == choice, tile.slope[row], task.entropy_coefficient / b));
    }
    l += n;
    d += n;
  }
}

TROUPE_DEVICE inline void PpoCriticRow(const PpoTask& task, const PpoTile& tile,
                                       const float* values, int row, int32_t step,
                                       const WholeMinibatch& whole) {
  const auto b = static_cast<double>(whole.rows);
  const ValueLossOfStep value =
      ValueLossOf(task.value_clip, values[row], task.v_old[step], task.target[step]);
  tile.sums[row * kNumPpoSums + kValueLossSum] = 0.5 * value.loss / b;
  tile.d[row] = static_cast<float>(task.value_coefficient * value.slope / b);
}

// The gradient by the log standard deviations, after PpoGaussianRow of all rows.
template <typename Block>
TROUPE_DEVICE void PpoLogStdGradient(const Block& block, const PpoTask& task, const PpoTile& tile,
                                     const float* means, const int32_t* order, int rows, bool add,
                                     float* gradient) {
  const int size = task.action_size;
  for (int j = block.thread; j < size; j += block.threads) {
    const double inverse_std =
        exp(-static_cast<double>(task.actor.values[task.actor.network_size + j]));
    double sum = 0;
    for (int row = 0; row < rows; ++row) {
      const double z =
          (task.a[static_cast<int64_t>(order[row]) * size + j] - means[row * size + j]) *
          inverse_std;
      sum += tile.slope[row] * (z * z - 1);
    }
    float* const to = gradient + task.actor.network_size + j;
    *to = (add ? *to : 0) + static_cast<float>(sum);
  }
}

// One tile of a minibatch, from its inputs to its part of the gradient.
template <typename Block>
TROUPE_DEVICE void PpoDifferentiate(const Block& block, const PpoTask& task, const PpoPart& part,
                                    const PpoTile& tile, const int32_t* order, int rows,
                                    const WholeMinibatch& whole, bool add, float* gradient) {
  const bool is_actor = &part == &task.actor;
  const int inputs = task.observation_size;
  for (int i = block.thread; i < rows * inputs; i += block.threads) {
    tile.h[i] = task.s[static_cast<int64_t>(order[i / inputs]) * inputs + i % inputs];
  }
  block.Sync();
  PpoForward(block, task, part, tile, rows);
  const float* const head = InputsOf(task, part, tile, part.num_layers);
  for (int row = block.thread; row < rows; row += block.threads) {
    if (!is_actor) {
      PpoCriticRow(task, tile, head, row, order[row], whole);
    } else if (task.discrete) {
      PpoChoiceRow(task, tile, head, row, order[row], whole);
    } else {
      PpoGaussianRow(task, tile, head, row, order[row], whole);
    }
  }
  block.Sync();
  if (is_actor && !task.discrete)
    PpoLogStdGradient(block, task, tile, head, order, rows, add, gradient);
  PpoBackward(block, task, part, tile, rows, add, gradient);
}

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_PPO_TILE_H_
