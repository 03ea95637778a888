#ifndef TROUPE_TESTS_UNIT_FUSED_RANDOM_PPO_H_
#define TROUPE_TESTS_UNIT_FUSED_RANDOM_PPO_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/fused/ppo_engine.h"

namespace troupe {

// A network's parameters with Adam's moments.
struct PpoVectors {
  std::vector<float> values, m, v;
  int64_t steps = 0;

  DescendedFloats View() { return {values.data(), m.data(), v.data(), steps}; }
};

// Steps, and the order in which an epoch after another takes them.
struct PpoBatch {
  int64_t epochs = 0, minibatches = 0;
  std::vector<float> s, a, log_mu, advantage, target, v_old;
  std::vector<int64_t> order;

  int64_t rows() const { return static_cast<int64_t>(log_mu.size()); }

  absl::StatusOr<PpoProgress> Improve(PpoEngine& engine) const {
    return engine.Improve(
        {.s = s.data(),
         .a = a.data(),
         .log_mu = log_mu.data(),
         .advantage = advantage.data(),
         .target = target.data(),
         .v_old = v_old.data()},
        {.rows = rows(), .epochs = epochs, .minibatches = minibatches, .order = order},
        /*learning_rate=*/1e-3);
  }
};

// Settings that all have an effect, and no networks yet.
inline PpoModel MakePpoModel(double max_kl) {
  PpoModel model;
  model.config.set_normalize_advantages(true);
  model.config.set_value_clip(0.3);
  model.config.set_max_gradient_norm(0.5);
  model.config.set_entropy_coefficient(0.01);
  model.config.set_max_kl(max_kl);
  return model;
}

// Random parameters and batches for tests of PPO's fused engines.
class RandomPpo final {
 public:
  explicit RandomPpo(uint64_t seed = 1) : engine_(seed) {}

  std::mt19937_64& engine() { return engine_; }

  std::vector<float> Normal(int64_t n, float scale = 1, float shift = 0) {
    std::normal_distribution<float> distribution(shift, scale);
    std::vector<float> numbers(n);
    for (float& number : numbers) number = distribution(engine_);
    return numbers;
  }

  PpoVectors Begin(int64_t size) {
    return {
        .values = Normal(size, 0.2f), .m = std::vector<float>(size), .v = std::vector<float>(size)};
  }

  // Of a Gaussian policy whose log pi is about `log_mu`.
  PpoBatch MakeBatch(int64_t rows, int64_t observation, int64_t action, float log_mu,
                     int64_t epochs, int64_t minibatches) {
    PpoBatch batch{.epochs = epochs,
                   .minibatches = minibatches,
                   .s = Normal(rows * observation),
                   .a = Normal(rows * action),
                   .log_mu = Normal(rows, 0.3f, log_mu),
                   .advantage = Normal(rows),
                   .target = Normal(rows),
                   .v_old = Normal(rows)};
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      std::vector<int64_t> one(rows);
      std::iota(one.begin(), one.end(), 0);
      std::shuffle(one.begin(), one.end(), engine_);
      batch.order.insert(batch.order.end(), one.begin(), one.end());
    }
    return batch;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_FUSED_RANDOM_PPO_H_
