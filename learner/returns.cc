#include "learner/returns.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace troupe {
namespace {

using torch::Tensor;

// The transitions of one unroll as plain arrays of T elements, `v` of T + 1.
struct Unroll {
  const float* r;
  const float* v;
  const bool* is_step;
  const bool* terminated;
  const bool* goes_on;

  double NextValue(int64_t t) const { return terminated[t] ? 0 : v[t + 1]; }
  double Delta(int64_t t, double gamma) const { return r[t] + gamma * NextValue(t) - v[t]; }
};

// Calls `fill(unroll, i, value, advantage)` for each unroll with where its targets go.
template <typename Fill>
Targets ForEachUnroll(const Unrolls& b, const Tensor& r, const Tensor& v, Fill fill) {
  const Tensor rewards = r.contiguous(), values = v.contiguous();
  const Tensor is_step = b.is_step.contiguous(), terminated = b.terminated.contiguous(),
               goes_on = b.goes_on.contiguous();
  Targets targets{torch::zeros_like(rewards), torch::zeros_like(rewards)};
  const int64_t length = b.length();
  for (int64_t i = 0; i < b.num_unrolls(); ++i) {
    const int64_t at = i * length;
    const Unroll unroll{rewards.data_ptr<float>() + at, values.data_ptr<float>() + at + i,
                        is_step.data_ptr<bool>() + at, terminated.data_ptr<bool>() + at,
                        goes_on.data_ptr<bool>() + at};
    fill(unroll, i, targets.value.data_ptr<float>() + at, targets.advantage.data_ptr<float>() + at);
  }
  return targets;
}

}  // namespace

Targets Gae(const Unrolls& b, const Tensor& r, const Tensor& v, double gamma, double lambda) {
  return ForEachUnroll(
      b, r, v, [&](const Unroll& unroll, int64_t i, float* value, float* advantage) {
        double next = 0;
        for (int64_t t = b.length() - 1; t >= 0; --t) {
          if (!unroll.is_step[t]) {
            next = 0;
            continue;
          }
          next = unroll.Delta(t, gamma) + (unroll.goes_on[t] ? gamma * lambda * next : 0);
          advantage[t] = static_cast<float>(next);
          value[t] = static_cast<float>(next + unroll.v[t]);
        }
      });
}

Targets NStep(const Unrolls& b, const Tensor& r, const Tensor& v, double gamma, int64_t n) {
  return ForEachUnroll(b, r, v,
                       [&](const Unroll& unroll, int64_t i, float* value, float* advantage) {
                         for (int64_t t = 0; t < b.length(); ++t) {
                           if (!unroll.is_step[t]) continue;
                           const int64_t end = std::min(t + n, b.length());
                           double sum = 0, discount = 1;
                           for (int64_t k = t; k < end; ++k) {
                             sum += discount * unroll.r[k];
                             discount *= gamma;
                             if (k + 1 < end && unroll.goes_on[k]) continue;
                             sum += discount * unroll.NextValue(k);
                             break;
                           }
                           value[t] = static_cast<float>(sum);
                           advantage[t] = static_cast<float>(sum - unroll.v[t]);
                         }
                       });
}

Targets VTrace(const Unrolls& b, const Tensor& r, const Tensor& v, const Tensor& log_rho,
               double gamma, const VTraceBounds& bounds) {
  const Tensor log_ratios = log_rho.contiguous();
  return ForEachUnroll(b, r, v,
                       [&](const Unroll& unroll, int64_t i, float* value, float* advantage) {
                         const float* log_ratio = log_ratios.data_ptr<float>() + i * b.length();
                         double excess = 0;  // v_{t+1} - V(s_{t+1})
                         for (int64_t t = b.length() - 1; t >= 0; --t) {
                           if (!unroll.is_step[t]) {
                             excess = 0;
                             continue;
                           }
                           if (!unroll.goes_on[t]) excess = 0;
                           const double ratio = std::exp(log_ratio[t]);
                           const double delta = unroll.Delta(t, gamma);
                           advantage[t] = static_cast<float>(delta + gamma * excess);
                           excess = std::min(bounds.rho_bar, ratio) * delta +
                                    gamma * std::min(bounds.c_bar, ratio) * excess;
                           value[t] = static_cast<float>(unroll.v[t] + excess);
                         }
                       });
}

Tensor PastReturns(const Unrolls& b, double gamma) {
  const Tensor no_values = torch::zeros({b.num_unrolls(), b.length() + 1});
  return ForEachUnroll(b, b.r, no_values,
                       [&](const Unroll& unroll, int64_t i, float* value, float*) {
                         double sum = 0;
                         for (int64_t t = 0; t < b.length(); ++t) {
                           if (!unroll.is_step[t]) {
                             sum = 0;
                             continue;
                           }
                           sum = gamma * sum + unroll.r[t];
                           value[t] = static_cast<float>(sum);
                         }
                       })
      .value;
}

}  // namespace troupe
