#include "tests/unit/learner/sac_reference.h"

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

// Parameters of one network: w1 [in, H], b1 [H], w2 [H, out], b2 [out].
Numbers Network(const double* w1, const double* b1, const double* w2, const double* b2,
                const Numbers& x, int64_t hidden, int64_t out) {
  Numbers h(b1, b1 + hidden), y(b2, b2 + out);
  for (int64_t j = 0; j < hidden; ++j) {
    for (size_t i = 0; i < x.size(); ++i) h[j] += x[i] * w1[i * hidden + j];
    h[j] = std::max(h[j], 0.0);
  }
  for (int64_t k = 0; k < out; ++k) {
    for (int64_t j = 0; j < hidden; ++j) y[k] += h[j] * w2[j * out + k];
  }
  return y;
}

}  // namespace

Numbers Gradient(const std::function<double(const Numbers&)>& f, Numbers x) {
  constexpr double kStep = 1e-6;
  Numbers gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + kStep;
    const double above = f(x);
    x[i] = at - kStep;
    gradient[i] = (above - f(x)) / (2 * kStep);
    x[i] = at;
  }
  return gradient;
}

void SacReference::AdamState::Descend(Numbers& x, const Numbers& gradient, double rate) {
  m.resize(x.size());
  v.resize(x.size());
  ++step;
  for (size_t i = 0; i < x.size(); ++i) {
    m[i] = 0.9 * m[i] + 0.1 * gradient[i];
    v[i] = 0.999 * v[i] + 0.001 * gradient[i] * gradient[i];
    const double m_hat = m[i] / (1 - std::pow(0.9, step));
    const double v_hat = v[i] / (1 - std::pow(0.999, step));
    x[i] -= rate * m_hat / (std::sqrt(v_hat) + 1e-8);
  }
}

SacReference::Sample SacReference::Act(const Numbers& policy, const Numbers& s,
                                       const Numbers& noise) const {
  const double* w1 = policy.data();
  const double* w2 = w1 + S * H + H;
  const Numbers head = Network(w1, w1 + S * H, w2, w2 + H * 2 * A, s, H, 2 * A);
  Sample sample{{}, {}, 0};
  for (int64_t i = 0; i < A; ++i) {
    const double log_std = std::clamp(head[A + i], -20.0, 2.0);
    sample.u.push_back(head[i] + std::exp(log_std) * noise[i]);
    sample.a.push_back(std::tanh(sample.u[i]));
  }
  sample.log_prob = LogProb(policy, s, sample.u);
  return sample;
}

double SacReference::LogProb(const Numbers& policy, const Numbers& s, const Numbers& u) const {
  const double* w1 = policy.data();
  const double* w2 = w1 + S * H + H;
  const Numbers head = Network(w1, w1 + S * H, w2, w2 + H * 2 * A, s, H, 2 * A);
  double log_prob = 0;
  for (int64_t i = 0; i < A; ++i) {
    const double log_std = std::clamp(head[A + i], -20.0, 2.0);
    const double z = (u[i] - head[i]) / std::exp(log_std), a = std::tanh(u[i]);
    log_prob += -0.5 * z * z - log_std - 0.5 * std::log(2 * M_PI) - std::log(1 - a * a);
  }
  return log_prob;
}

double SacReference::Value(const Numbers& s, const Numbers& a) const {
  double least = INFINITY, mean = 0;
  for (int64_t e = 0; e < E; ++e) {
    const double q = Q(theta, e, s, a);
    least = std::min(least, q);
    mean += q / static_cast<double>(E);
  }
  return mean_critic ? mean : least;
}

double SacReference::Q(const Numbers& critics, int64_t e, const Numbers& s,
                       const Numbers& a) const {
  const int64_t in = on_v ? S : S + A;
  const double* w1 = critics.data();
  const double* b1 = w1 + E * in * H;
  const double* w2 = b1 + E * H;
  const double* b2 = w2 + E * H;
  Numbers x = s;
  if (!on_v) x.insert(x.end(), a.begin(), a.end());
  return Network(w1 + e * in * H, b1 + e * H, w2 + e * H, b2 + e, x, H, 1)[0];
}

Numbers SacReference::Targets(const std::vector<Transition>& batch, const Noise& noise,
                              double alpha) const {
  Numbers y;
  for (size_t b = 0; b < batch.size(); ++b) {
    const Transition& t = batch[b];
    const Sample next = Act(phi, t.s_next, noise.next[b]);
    double q = INFINITY;
    for (const int64_t e : noise.subset) q = std::min(q, Q(theta_bar, e, t.s_next, next.a));
    if (backup_entropy) q -= alpha * next.log_prob;
    y.push_back(t.r + t.gamma * (1 - t.d) * q);
  }
  return y;
}

double SacReference::CriticLoss(const Numbers& critics, const std::vector<Transition>& batch,
                                const Numbers& y) const {
  double loss = 0;
  for (int64_t e = 0; e < E; ++e) {
    for (size_t b = 0; b < batch.size(); ++b) {
      const double error = Q(critics, e, batch[b].s, batch[b].a) - y[b];
      loss += 0.5 * batch[b].weight * error * error / static_cast<double>(batch.size());
    }
  }
  return loss;
}

double SacReference::ActorLoss(const Numbers& policy, const std::vector<Transition>& batch,
                               const Noise& noise, double alpha) const {
  double loss = 0;
  for (size_t b = 0; b < batch.size(); ++b) {
    const Transition& t = batch[b];
    const Sample now = Act(policy, t.s, noise.now[b]);
    if (on_v) {
      Numbers u;
      for (const double a : t.a) u.push_back(std::atanh(a));
      const double advantage = t.r + t.gamma * (1 - t.d) * Value(t.s_next, {}) - Value(t.s, {});
      loss += alpha * now.log_prob - advantage * LogProb(policy, t.s, u);
    } else if (score_function) {
      const Sample drawn = Act(phi, t.s, noise.now[b]);
      double advantage = Value(t.s, drawn.a) - alpha * drawn.log_prob;
      if (baseline) {
        const Sample other = Act(phi, t.s, noise.baseline[b]);
        advantage -= Value(t.s, other.a) - alpha * other.log_prob;
      }
      loss -= advantage * LogProb(policy, t.s, drawn.u);
    } else {
      loss += alpha * now.log_prob - Value(t.s, now.a);
    }
  }
  return loss / static_cast<double>(batch.size());
}

void SacReference::Update(const std::vector<Transition>& batch, const Noise& noise) {
  const double alpha = has_entropy ? std::exp(log_alpha) : 0;
  const Numbers y = Targets(batch, noise, alpha);
  theta_adam.Descend(theta,
                     Gradient([&](const Numbers& x) { return CriticLoss(x, batch, y); }, theta),
                     learning_rate);
  if (++updates % actor_interval == 0) {
    double log_prob = 0;
    for (size_t b = 0; b < batch.size(); ++b) {
      log_prob += Act(phi, batch[b].s, noise.now[b]).log_prob / static_cast<double>(batch.size());
    }
    phi_adam.Descend(
        phi, Gradient([&](const Numbers& x) { return ActorLoss(x, batch, noise, alpha); }, phi),
        learning_rate);
    Numbers temperature = {log_alpha};
    if (automatic_temperature) {
      alpha_adam.Descend(temperature, {-(log_prob + target_entropy)}, learning_rate);
    }
    log_alpha = temperature[0];
  }
  for (size_t i = 0; i < theta.size(); ++i) theta_bar[i] += tau * (theta[i] - theta_bar[i]);
}

}  // namespace troupe
