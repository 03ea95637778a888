#ifndef TROUPE_TESTS_UNIT_FUSED_RANDOM_SAC_H_
#define TROUPE_TESTS_UNIT_FUSED_RANDOM_SAC_H_

#include <cmath>
#include <random>
#include <vector>

#include "learner/fused/sac_engine.h"

namespace troupe {

// Random parameters, batches and replicas for tests and benchmarks of fused engines.
class RandomSac final {
 public:
  explicit RandomSac(const SacModel& model, uint64_t seed = 1) : model_(model), engine_(seed) {}

  std::vector<float> Uniform(int64_t n, float range) {
    std::uniform_real_distribution<float> distribution(-range, range);
    std::vector<float> numbers(n);
    for (float& number : numbers) number = distribution(engine_);
    return numbers;
  }

  // Weights as PyTorch's linear layers begin, and targets that differ from the critics.
  SacState State() {
    SacState state;
    state.actor = Vector(ActorNetwork(model_));
    state.critics = Vector(CriticNetwork(model_));
    state.target_critics = Vector(CriticNetwork(model_)).values;
    state.log_alpha = {.values = {-1}, .m = {0}, .v = {0}, .steps = 0};
    state.seed = model_.seed;
    return state;
  }

  struct Batch {
    std::vector<float> rows, weights, noise;
    std::vector<ReplicaTransition> transitions;
    std::vector<int32_t> target_critics;

    SacBatch View() const {
      return {.rows = rows,
              .transitions = transitions,
              .weights = weights,
              .noise = noise,
              .target_critics = target_critics};
    }
  };
  // Without weights, and without draws of its own.
  Batch MakeBatch() {
    Batch batch;
    batch.rows = Uniform(2 * model_.batch_size * RowFloats(), 1);
    for (uint32_t b = 0; b < model_.batch_size; ++b) {
      batch.transitions.push_back(MakeTransition(2 * b, 2 * b + 1));
    }
    return batch;
  }

  // Fills a replica to the brim.
  absl::Status Fill(ReplicaStore& replica) {
    const uint32_t capacity = replica.shape().capacity;
    for (uint32_t slot = 0; slot < capacity; slot += 4096) {
      const uint32_t n = std::min<uint32_t>(4096, capacity - slot);
      absl::Status status = replica.WriteRows(slot, Uniform(n * RowFloats(), 1));
      std::vector<ReplicaTransition> transitions;
      for (uint32_t i = slot; i < slot + n; ++i) {
        transitions.push_back(MakeTransition(i, (i + 1) % capacity));
      }
      status.Update(replica.WriteTransitions(slot, transitions));
      if (!status.ok()) return status;
    }
    return replica.SetRange(0, capacity);
  }

 private:
  int64_t RowFloats() const { return model_.observation_size + model_.action_size; }

  ReplicaTransition MakeTransition(uint32_t state_slot, uint32_t next_slot) {
    const std::vector<float> numbers = Uniform(2, 1);
    return {state_slot, next_slot, numbers[0], numbers[1] < -0.8f ? 0.0f : 0.99f};
  }

  DescendedVector Vector(const FlatNetwork& network) {
    DescendedVector vector;
    for (const FlatLayer& layer : network.layers) {
      const float range = 1 / std::sqrt(static_cast<float>(layer.k));
      const std::vector<float> drawn = Uniform(network.ensemble * (layer.k + 1) * layer.n, range);
      vector.values.insert(vector.values.end(), drawn.begin(), drawn.end());
      if (!layer.has_norm) continue;
      std::vector<float> norm = Uniform(2 * network.ensemble * layer.n, 0.5f);
      for (int64_t i = 0; i < network.ensemble * layer.n; ++i) norm[i] += 1;  // the gains
      vector.values.insert(vector.values.end(), norm.begin(), norm.end());
    }
    vector.m.assign(vector.values.size(), 0);
    vector.v.assign(vector.values.size(), 0);
    return vector;
  }

  const SacModel model_;
  std::mt19937_64 engine_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_FUSED_RANDOM_SAC_H_
