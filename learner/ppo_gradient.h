#ifndef TROUPE_LEARNER_PPO_GRADIENT_H_
#define TROUPE_LEARNER_PPO_GRADIENT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "learner/fused/ppo_formulas.h"
#include "proto/config.pb.h"

namespace troupe {

// What PPO's loss  value_coefficient L_V - surrogate - entropy_coefficient H  depends on, for some
// rows of a minibatch.
struct PpoPolicyRows {
  int64_t rows = 0;
  int64_t action_size = 0;
  const float* head = nullptr;       // what the network says: means, or logits
  int64_t head_stride = 0;           // floats from row to row of the head, and of its gradient
  const float* a = nullptr;          // [rows, action_size]
  const float* log_mu = nullptr;     // [rows], as those below
  const float* advantage = nullptr;  // as estimated
};

struct PpoValueRows {
  int64_t rows = 0;
  const float* v = nullptr;  // [rows], as all below
  const float* target = nullptr;
  const float* v_old = nullptr;
};

// The means over a minibatch, of whose rows one part is added after another.
struct PpoLoss {
  double surrogate = 0;
  double value_loss = 0;
  double kl = 0;             // ApproximateKl
  double clip_fraction = 0;  // of ratios beyond clip_epsilon
  double entropy = 0;        // of the policy; of choices a sum over the rows, too
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

// The loss of no rows: what depends on the log standard deviations alone; choices have none.
// `share`: of the minibatch, which is added here; the rest is, elsewhere.
void BeginPpoLoss(const proto::Ppo& config, const float* log_std, int64_t num_log_stds,
                  double share, PpoLoss& loss);

// These add some rows of a minibatch of `minibatch_size` and fill in the gradients by each row's
// head, or value.  The same as the objectives of ppo_objectives.h and their backward(), in one pass
// over the rows where LibTorch would make a hundred small operations.
void AddGaussianRows(const proto::Ppo& config, const PpoPolicyRows& x, const AdvantageScale& scale,
                     int64_t minibatch_size, float* head_gradient, PpoLoss& loss);
void AddChoiceRows(const proto::Ppo& config, absl::Span<const int64_t> num_choices,
                   const PpoPolicyRows& x, const AdvantageScale& scale, int64_t minibatch_size,
                   float* head_gradient, PpoLoss& loss);
void AddValueRows(const proto::Ppo& config, const PpoValueRows& x, int64_t minibatch_size,
                  float* v_gradient, PpoLoss& loss);

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_GRADIENT_H_
