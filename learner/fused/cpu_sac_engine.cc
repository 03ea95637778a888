#include "learner/fused/cpu_sac_engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "learner/fused/cpu_products.h"
#include "learner/ram_replica_store.h"

namespace troupe {
namespace {

// What a network's passes leave behind, [batch, width] each; h and d have one entry a hidden layer.
struct Activations {
  std::vector<std::vector<float>> h;  // outputs of the hidden layers
  std::vector<std::vector<float>> d;  // gradients of these before the activation
  std::vector<float> head, head_gradient;

  Activations(const FlatNetwork& network, int64_t batch) {
    for (int64_t l = 0; l < network.num_hidden(); ++l) {
      h.emplace_back(batch * network.layers[l].n);
      d.emplace_back(batch * network.layers[l].n);
    }
    head.resize(batch * network.head().n);
    head_gradient.resize(batch * network.head().n);
  }
};

// An input of a network: rows of `stride` floats.
struct Input {
  const float* data;
  int64_t stride;
};

class CpuSacEngine final : public SacEngine {
 public:
  explicit CpuSacEngine(const SacModel& model);

  const SacModel& model() const override { return model_; }
  absl::Status Update(const SacBatch& batch) override;
  absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) override;
  absl::Status UpdateFromReplica(int64_t count) override;
  int64_t updates() const override { return state_.updates; }
  absl::StatusOr<SacStatistics> Statistics() const override { return statistics_; }
  absl::StatusOr<std::vector<float>> ActorParameters() const override {
    return state_.actor.values;
  }
  absl::StatusOr<SacState> Save() const override { return state_; }
  absl::Status Load(const SacState& state) override;

 private:
  void SetRow(int64_t b, const ReplicaTransition& transition, const float* rows);
  void DrawNoise(Draw what, std::vector<float>& noise) const;
  // The update of the batch in s_a_, next_s_a_, reward_, discount_, with the noise drawn.
  void Learn();
  void ImproveCritics(float alpha);
  void ImproveActor(float alpha);
  void Forward(const FlatNetwork& network, int64_t e, HiddenUnit unit, const float* parameters,
               const Input& input, Activations& out) const;
  // From out.head_gradient down to the gradients of all hidden layers.
  void Backward(const FlatNetwork& network, int64_t e, HiddenUnit unit, const float* parameters,
                Activations& out);
  void WeightGradients(const FlatNetwork& network, int64_t e, const Input& input,
                       const Activations& passes, float* gradients) const;
  // Draws actions into `inputs` and their log-probabilities into log_pi_; leaves elements_.
  void SampleActions(const float* head, const std::vector<float>& noise,
                     std::vector<float>& inputs);
  static void Descend(float learning_rate, std::vector<float>& gradients, DescendedVector& vector);

  const SacModel model_;
  const int64_t batch_, inputs_;  // inputs of a critic
  const FlatNetwork actor_network_, critic_network_;
  SacState state_;
  SacStatistics statistics_;
  std::unique_ptr<RamReplicaStore> replica_;

  std::vector<float> s_a_, next_s_a_;  // [batch, inputs]
  std::vector<float> reward_, discount_, next_noise_, noise_, log_pi_, y_;
  std::vector<SquashedElement> elements_;  // [batch, action_size]
  Activations actor_, critics_[2];
  std::vector<float> actor_gradient_, critic_gradient_, transposed_, action_gradient_;
};

CpuSacEngine::CpuSacEngine(const SacModel& model)
    : model_(model),
      batch_(model.batch_size),
      inputs_(model.observation_size + model.action_size),
      actor_network_(ActorNetwork(model)),
      critic_network_(CriticNetwork(model)),
      s_a_(batch_ * inputs_),
      next_s_a_(batch_ * inputs_),
      reward_(batch_),
      discount_(batch_),
      next_noise_(batch_ * model.action_size),
      noise_(batch_ * model.action_size),
      log_pi_(batch_),
      y_(batch_),
      elements_(batch_ * model.action_size),
      actor_(actor_network_, batch_),
      critics_{{critic_network_, batch_}, {critic_network_, batch_}},
      actor_gradient_(actor_network_.size),
      critic_gradient_(critic_network_.size),
      action_gradient_(batch_ * model.action_size) {
  int64_t largest = 0;
  for (const FlatNetwork* network : {&actor_network_, &critic_network_}) {
    for (const FlatLayer& layer : network->layers) largest = std::max(largest, layer.k * layer.n);
  }
  transposed_.resize(largest);
}

absl::Status CpuSacEngine::Load(const SacState& state) {
  state_ = state;
  return absl::OkStatus();
}

void CpuSacEngine::SetRow(int64_t b, const ReplicaTransition& transition, const float* rows) {
  const float* const s = rows + transition.state_slot * inputs_;
  const float* const next = rows + transition.next_slot * inputs_;
  std::copy_n(s, inputs_, &s_a_[b * inputs_]);
  std::copy_n(next, model_.observation_size, &next_s_a_[b * inputs_]);
  reward_[b] = transition.reward;
  discount_[b] = transition.discount;
}

void CpuSacEngine::DrawNoise(Draw what, std::vector<float>& noise) const {
  for (size_t i = 0; i < noise.size(); ++i) {
    noise[i] = DrawNormal(DrawWords(state_.seed, state_.updates, what, static_cast<uint32_t>(i)));
  }
}

absl::Status CpuSacEngine::Update(const SacBatch& batch) {
  for (int64_t b = 0; b < batch_; ++b) SetRow(b, batch.transitions[b], batch.rows.data());
  if (batch.noise.empty()) {
    DrawNoise(Draw::kNextAction, next_noise_);
    DrawNoise(Draw::kAction, noise_);
  } else {
    std::copy_n(batch.noise.begin(), noise_.size(), next_noise_.begin());
    std::copy_n(batch.noise.begin() + noise_.size(), noise_.size(), noise_.begin());
  }
  Learn();
  return absl::OkStatus();
}

absl::StatusOr<ReplicaStore*> CpuSacEngine::MakeReplica(const ReplicaShape& shape) {
  if (replica_ == nullptr) replica_ = std::make_unique<RamReplicaStore>(shape);
  return replica_.get();
}

absl::Status CpuSacEngine::UpdateFromReplica(int64_t count) {
  if (replica_ == nullptr || replica_->head() == replica_->tail()) {
    return absl::FailedPreconditionError("the replica holds no transitions");
  }
  const uint64_t n = replica_->head() - replica_->tail();
  for (; count > 0; --count) {
    for (int64_t b = 0; b < batch_; ++b) {
      const RandomWords words =
          DrawWords(state_.seed, state_.updates, Draw::kTransition, static_cast<uint32_t>(b));
      SetRow(b, replica_->transition(replica_->tail() + DrawBelow(words, n)), replica_->row(0));
    }
    DrawNoise(Draw::kNextAction, next_noise_);
    DrawNoise(Draw::kAction, noise_);
    Learn();
  }
  return absl::OkStatus();
}

void CpuSacEngine::Forward(const FlatNetwork& network, int64_t e, HiddenUnit unit,
                           const float* parameters, const Input& input, Activations& out) const {
  Input x = input;
  for (int64_t l = 0; l <= network.num_hidden(); ++l) {
    const FlatLayer& layer = network.layers[l];
    const bool is_head = l == network.num_hidden();
    float* const y = is_head ? out.head.data() : out.h[l].data();
    const float* const bias = parameters + layer.bias_of(e);
    for (int64_t b = 0; b < batch_; ++b) std::copy_n(bias, layer.n, y + b * layer.n);
    MultiplyMatrices(batch_, layer.n, layer.k, {x.data, x.stride, 1},
                     parameters + layer.weights_of(e), layer.n, /*add=*/true, y, layer.n);
    if (is_head) return;
    for (int64_t i = 0; i < batch_ * layer.n; ++i) y[i] = Activate(unit, y[i]);
    x = {y, layer.n};
  }
}

void CpuSacEngine::Backward(const FlatNetwork& network, int64_t e, HiddenUnit unit,
                            const float* parameters, Activations& out) {
  const float* dy = out.head_gradient.data();
  for (int64_t l = network.num_hidden(); l > 0; --l) {
    const FlatLayer& layer = network.layers[l];
    const float* const weights = parameters + layer.weights_of(e);
    for (int64_t k = 0; k < layer.k; ++k) {
      for (int64_t n = 0; n < layer.n; ++n) transposed_[n * layer.k + k] = weights[k * layer.n + n];
    }
    float* const dx = out.d[l - 1].data();
    MultiplyMatrices(batch_, layer.k, layer.n, {dy, layer.n, 1}, transposed_.data(), layer.k,
                     /*add=*/false, dx, layer.k);
    const float* const h = out.h[l - 1].data();
    for (int64_t i = 0; i < batch_ * layer.k; ++i) dx[i] *= ActivationSlope(unit, h[i]);
    dy = dx;
  }
}

void CpuSacEngine::WeightGradients(const FlatNetwork& network, int64_t e, const Input& input,
                                   const Activations& passes, float* gradients) const {
  for (int64_t l = 0; l <= network.num_hidden(); ++l) {
    const FlatLayer& layer = network.layers[l];
    const Input x = l == 0 ? input : Input{passes.h[l - 1].data(), layer.k};
    const float* const dy =
        l == network.num_hidden() ? passes.head_gradient.data() : passes.d[l].data();
    MultiplyMatrices(layer.k, layer.n, batch_, {x.data, 1, x.stride}, dy, layer.n, /*add=*/false,
                     gradients + layer.weights_of(e), layer.n);
    float* const bias = gradients + layer.bias_of(e);
    std::fill_n(bias, layer.n, 0.0f);
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t n = 0; n < layer.n; ++n) bias[n] += dy[b * layer.n + n];
    }
  }
}

void CpuSacEngine::Descend(float learning_rate, std::vector<float>& gradients,
                           DescendedVector& vector) {
  const AdamSizes sizes = AdamSizesOf(learning_rate, ++vector.steps);
  for (size_t i = 0; i < gradients.size(); ++i) {
    vector.values[i] = AdamStep(sizes, gradients[i], vector.values[i], vector.m[i], vector.v[i]);
  }
}

void CpuSacEngine::SampleActions(const float* head, const std::vector<float>& noise,
                                 std::vector<float>& inputs) {
  const int64_t size = model_.action_size;
  for (int64_t b = 0; b < batch_; ++b) {
    log_pi_[b] = 0;
    for (int64_t i = 0; i < size; ++i) {
      const SquashedElement element =
          SquashElement(head[b * 2 * size + i], head[b * 2 * size + size + i], noise[b * size + i],
                        model_.log_std_min, model_.log_std_max);
      elements_[b * size + i] = element;
      inputs[b * inputs_ + model_.observation_size + i] = element.action;
      log_pi_[b] += element.log_prob;
    }
  }
}

void CpuSacEngine::Learn() {
  const float alpha = model_.has_entropy ? std::exp(state_.log_alpha.values[0]) : 0;
  ImproveCritics(alpha);
  ++state_.updates;
  if (state_.updates % model_.actor_update_interval == 0) ImproveActor(alpha);
  for (size_t i = 0; i < state_.target_critics.size(); ++i) {
    state_.target_critics[i] += model_.tau * (state_.critics.values[i] - state_.target_critics[i]);
  }
  statistics_.alpha = std::exp(state_.log_alpha.values[0]);
}

void CpuSacEngine::ImproveCritics(float alpha) {
  const Input next{next_s_a_.data(), inputs_}, now{s_a_.data(), inputs_};
  Forward(actor_network_, 0, model_.actor_unit, state_.actor.values.data(), next, actor_);
  SampleActions(actor_.head.data(), next_noise_, next_s_a_);
  for (int e = 0; e < 2; ++e) {
    Forward(critic_network_, e, model_.critic_unit, state_.target_critics.data(), next,
            critics_[e]);
  }
  for (int64_t b = 0; b < batch_; ++b) {
    y_[b] =
        SoftTargetOf(reward_[b], discount_[b], std::min(critics_[0].head[b], critics_[1].head[b]),
                     model_.backup_entropy ? alpha : 0, log_pi_[b]);
  }
  double loss = 0, sum = 0;
  for (int e = 0; e < 2; ++e) {
    Activations& critic = critics_[e];
    Forward(critic_network_, e, model_.critic_unit, state_.critics.values.data(), now, critic);
    for (int64_t b = 0; b < batch_; ++b) {
      const float error = critic.head[b] - y_[b];
      loss += 0.5 * error * error;
      sum += critic.head[b];
      critic.head_gradient[b] = error / static_cast<float>(batch_);
    }
    Backward(critic_network_, e, model_.critic_unit, state_.critics.values.data(), critic);
    WeightGradients(critic_network_, e, now, critic, critic_gradient_.data());
  }
  statistics_.q_loss = static_cast<float>(loss / static_cast<double>(batch_));
  statistics_.q_mean = static_cast<float>(sum / static_cast<double>(2 * batch_));
  Descend(model_.critic_learning_rate, critic_gradient_, state_.critics);
}

void CpuSacEngine::ImproveActor(float alpha) {
  const Input input{s_a_.data(), inputs_};
  const int64_t size = model_.action_size, observation = model_.observation_size;
  const float batch = static_cast<float>(batch_);
  const float* const critics = state_.critics.values.data();
  Forward(actor_network_, 0, model_.actor_unit, state_.actor.values.data(), input, actor_);
  SampleActions(actor_.head.data(), noise_, s_a_);
  for (int e = 0; e < 2; ++e) {
    Forward(critic_network_, e, model_.critic_unit, critics, input, critics_[e]);
  }
  double loss = 0;
  for (int64_t b = 0; b < batch_; ++b) {
    loss += alpha * log_pi_[b];
    for (int e = 0; e < 2; ++e) {
      const float q = critics_[e].head[b];
      const float share = ShareOfCritic(q, critics_[1 - e].head[b], model_.actor_uses_mean_critic);
      critics_[e].head_gradient[b] = -share / batch;
      loss -= share * q;
    }
  }
  std::fill(action_gradient_.begin(), action_gradient_.end(), 0.0f);
  const FlatLayer& first = critic_network_.layers[0];
  for (int e = 0; e < 2; ++e) {
    Backward(critic_network_, e, model_.critic_unit, critics, critics_[e]);
    // The rows of the first weights that actions enter by, transposed.
    const float* const weights = critics + first.weights_of(e) + observation * first.n;
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t n = 0; n < first.n; ++n) transposed_[n * size + i] = weights[i * first.n + n];
    }
    MultiplyMatrices(batch_, size, first.n, {critics_[e].d[0].data(), first.n, 1},
                     transposed_.data(), size, /*add=*/true, action_gradient_.data(), size);
  }
  for (int64_t b = 0; b < batch_; ++b) {
    for (int64_t i = 0; i < size; ++i) {
      const SquashedElement& element = elements_[b * size + i];
      const HeadGradient gradient = SquashGradient(element.action, element.spread, element.is_free,
                                                   action_gradient_[b * size + i], alpha / batch);
      actor_.head_gradient[b * 2 * size + i] = gradient.mean;
      actor_.head_gradient[b * 2 * size + size + i] = gradient.log_std;
    }
  }
  Backward(actor_network_, 0, model_.actor_unit, state_.actor.values.data(), actor_);
  WeightGradients(actor_network_, 0, input, actor_, actor_gradient_.data());
  Descend(model_.actor_learning_rate, actor_gradient_, state_.actor);
  const float log_pi = std::accumulate(log_pi_.begin(), log_pi_.end(), 0.0f) / batch;
  statistics_.actor_loss = static_cast<float>(loss / static_cast<double>(batch_));
  statistics_.entropy = -log_pi;
  if (!model_.automatic_temperature) return;
  std::vector<float> gradient = {-(log_pi + model_.target_entropy)};
  Descend(model_.alpha_learning_rate, gradient, state_.log_alpha);
}

}  // namespace

std::unique_ptr<SacEngine> MakeCpuSacEngine(const SacModel& model, int num_threads) {
  return std::make_unique<CpuSacEngine>(model);
}

}  // namespace troupe
