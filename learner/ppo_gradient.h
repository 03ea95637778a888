#ifndef TROUPE_LEARNER_PPO_GRADIENT_H_
#define TROUPE_LEARNER_PPO_GRADIENT_H_

#include <cstdint>
#include <vector>

#include "learner/fused/ppo_formulas.h"
#include "proto/config.pb.h"

namespace troupe {

// What PPO's loss  value_coefficient L_V - surrogate - entropy_coefficient H  depends on, for a
// Gaussian policy and some rows of a minibatch.
struct GaussianPpoRows {
  int64_t rows = 0;
  int64_t action_size = 0;
  const float* mean = nullptr;       // [rows, action_size]
  int64_t mean_stride = 0;           // floats from row to row of the mean, and of its gradient
  const float* v = nullptr;          // [rows], as all below
  const float* a = nullptr;          // [rows, action_size]
  const float* log_mu = nullptr;     //
  const float* advantage = nullptr;  // as estimated
  const float* target = nullptr;     //
  const float* v_old = nullptr;      //
};

// The gradients by each row's mean and value.
struct GaussianPpoRowGradients {
  float* mean = nullptr;  // [rows, action_size]
  float* v = nullptr;     // [rows]
};

// What standardizes advantages: (A - mean) * inverse_std.
struct AdvantageScale {
  double mean = 0;
  double inverse_std = 1;
};

// The means over a minibatch, of whose rows one part is added after another.
struct PpoLoss {
  double surrogate = 0;
  double value_loss = 0;
  double kl = 0;             // ApproximateKl
  double clip_fraction = 0;  // of ratios beyond clip_epsilon
  double entropy = 0;        // of the policy
  // [action_size]: 1 / sigma, and the loss's gradient by log sigma.
  std::vector<double> inverse_std, log_std;
};

// True where the gradient of the surrogate is known here.
bool HasClosedGradient(const proto::Ppo& config);

// REQUIRES: HasClosedGradient(config).
PpoSurrogate SurrogateKind(const proto::Ppo& config);

AdvantageScale ScaleOf(const proto::Ppo& config, const float* advantage, int64_t n);
// The same by the sums of n advantages and of their squared distances from the mean.
AdvantageScale ScaleOf(const proto::Ppo& config, int64_t n, double sum, double squares);

// The loss of no rows: what depends on the log standard deviations alone.  `share`: of the
// minibatch, which is added here; the rest is, elsewhere.
void BeginPpoLoss(const proto::Ppo& config, const float* log_std, int64_t action_size, double share,
                  PpoLoss& loss);

// Adds these rows of a minibatch of `minibatch_size`.  The same as the objectives of
// ppo_objectives.h and their backward(), in one pass over the rows where LibTorch would make a
// hundred small operations.
void AddPpoRows(const proto::Ppo& config, const GaussianPpoRows& x, const AdvantageScale& scale,
                int64_t minibatch_size, const GaussianPpoRowGradients& gradients, PpoLoss& loss);

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_GRADIENT_H_
