#ifndef TROUPE_TESTS_UNIT_LEARNER_SAC_REFERENCE_H_
#define TROUPE_TESTS_UNIT_LEARNER_SAC_REFERENCE_H_

#include <cstdint>
#include <functional>
#include <vector>

namespace troupe {

using Numbers = std::vector<double>;

// Soft Actor-Critic written out in loops of double arithmetic, with gradients by central
// differences: nothing of it is shared with the product.  One hidden ReLU layer.
struct SacReference {
  struct Transition {
    Numbers s, a;
    double r, gamma, d;
    Numbers s_next;
    double weight = 1;  // in the critics' loss
  };
  // The random numbers of one update.
  struct Noise {
    std::vector<Numbers> next, now, baseline;  // [B][A], standard normal
    std::vector<int64_t> subset;               // critics that the target's minimum is over
  };
  struct AdamState {
    Numbers m, v;
    int step = 0;
    void Descend(Numbers& x, const Numbers& gradient, double rate);
  };

  int64_t S, A, H, E;
  double learning_rate, tau, target_entropy;
  bool backup_entropy, mean_critic, automatic_temperature, has_entropy;
  bool on_v, score_function, baseline;  // critics are V(s); how the policy climbs, with what
  int64_t actor_interval;
  Numbers phi, theta, theta_bar;  // policy, critics, target critics, as the product lays them out
  double log_alpha;

  AdamState phi_adam, theta_adam, alpha_adam;
  int64_t updates = 0;

  void Update(const std::vector<Transition>& batch, const Noise& noise);

  // Loss of the critics and of the policy for given parameters.
  double CriticLoss(const Numbers& critics, const std::vector<Transition>& batch,
                    const Numbers& y) const;
  // Actions and advantages of the score function are those of `phi`.
  double ActorLoss(const Numbers& policy, const std::vector<Transition>& batch, const Noise& noise,
                   double alpha) const;
  Numbers Targets(const std::vector<Transition>& batch, const Noise& noise, double alpha) const;

 private:
  struct Sample {
    Numbers a, u;  // a = tanh(u)
    double log_prob;
  };
  // log pi(tanh(u)|s).
  double LogProb(const Numbers& policy, const Numbers& s, const Numbers& u) const;
  // Over all critics, as the policy sees it; `a` is not looked at where critics are V(s).
  double Value(const Numbers& s, const Numbers& a) const;
  Sample Act(const Numbers& policy, const Numbers& s, const Numbers& noise) const;
  double Q(const Numbers& critics, int64_t e, const Numbers& s, const Numbers& a) const;
};

// Central differences of `f` at `x`.
Numbers Gradient(const std::function<double(const Numbers&)>& f, Numbers x);

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_LEARNER_SAC_REFERENCE_H_
