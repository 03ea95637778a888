#include "learner/fused/cpu/sac_worker.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "learner/fused/sac_formulas.h"

namespace troupe::cpu {
namespace {

// Rows that pass through all layers together.
constexpr int64_t kBlockRows = 128;

int64_t BlockRows(int64_t rows) { return std::min(rows, kBlockRows); }

}  // namespace

SacWorker::SacWorker(const SacModel& model, const SacNetworks& networks, const Kernels& kernels,
                     int64_t begin, int64_t end)
    : model_(model),
      networks_(networks),
      kernels_(kernels),
      begin_(begin),
      end_(end),
      inputs_(model.observation_size + model.action_size),
      input_stride_(RoomFor(inputs_)),
      inverse_batch_(1 / static_cast<float>(model.batch_size)),
      inverse_critics_(1 / static_cast<float>(model.num_critics)),
      now_(size() * input_stride_),
      next_(size() * input_stride_),
      reward_(size()),
      discount_(size()),
      weight_(size()),
      absolute_errors_(size()),
      actor_(networks.actor_mlp, BlockRows(size())),
      y_(kBlockRows),
      log_pi_(kBlockRows),
      least_(kBlockRows),
      ties_(kBlockRows),
      mean_(kBlockRows * model.action_size),
      log_std_(mean_.size()),
      noise_(mean_.size()),
      action_(mean_.size()),
      spread_(mean_.size()),
      is_free_(mean_.size()),
      log_prob_(mean_.size()),
      word0_(mean_.size()),
      word1_(mean_.size()),
      action_gradient_(kBlockRows * RoomFor(model.action_size)),
      one_critics_(action_gradient_.size()),
      critic_gradient_(model.num_critics * networks.critic_mlp.size()),
      actor_gradient_(networks.actor_mlp.size()) {
  for (int64_t e = 0; e < model.num_critics; ++e) {
    critics_.emplace_back(networks.critic_mlp, BlockRows(size()));
  }
  picks_.reserve(kBlockRows);
}

void SacWorker::SetTransition(int64_t i, const ReplicaTransition& transition, const float* rows,
                              float weight) {
  std::copy_n(rows + transition.state_slot * inputs_, inputs_, now_.data() + i * input_stride_);
  std::copy_n(rows + transition.next_slot * inputs_, model_.observation_size,
              next_.data() + i * input_stride_);
  reward_[i] = transition.reward;
  discount_[i] = transition.discount;
  weight_[i] = weight;
  absolute_errors_[i] = 0;
}

void SacWorker::DifferentiateCritics(const Draws& draws, float alpha) {
  sums_.squared_error = sums_.q = 0;
  for (int64_t first = 0; first < size(); first += kBlockRows) {
    DifferentiateCriticsOf({first, BlockRows(size() - first)}, draws, alpha);
  }
}

void SacWorker::DifferentiateActor(const Draws& draws, float alpha) {
  sums_.actor_loss = sums_.log_pi = 0;
  for (int64_t first = 0; first < size(); first += kBlockRows) {
    DifferentiateActorOf({first, BlockRows(size() - first)}, draws, alpha);
  }
}

InputRows SacWorker::RowsOf(const AlignedFloats& inputs, const Range& range) const {
  return {inputs.data() + range.first * input_stride_, input_stride_, range.count};
}

void SacWorker::DrawNoise(const Range& range, const Draws& draws, Draw what) {
  const int64_t before = (begin_ + range.first) * model_.action_size;
  const int64_t n = range.count * model_.action_size;
  const float* const given = what == Draw::kAction ? draws.of_action : draws.of_next_action;
  if (given != nullptr) {
    std::copy_n(given + before, n, noise_.data());
    return;
  }
  kernels_.draw_words(draws.seed, draws.update, static_cast<uint32_t>(what),
                      static_cast<uint32_t>(before), n, word0_.data(), word1_.data());
  kernels_.normals(word0_.data(), word1_.data(), n, noise_.data());
}

void SacWorker::SampleActions(const Range& range, const Draws& draws, Draw what,
                              AlignedFloats& inputs) {
  const int64_t size = model_.action_size;
  for (int64_t i = 0; i < range.count; ++i) {
    const float* const head = actor_.output.data() + i * networks_.actor_mlp.output_stride();
    std::copy_n(head, size, mean_.data() + i * size);
    std::copy_n(head + size, size, log_std_.data() + i * size);
  }
  DrawNoise(range, draws, what);
  kernels_.squash({.n = range.count * size,
                   .mean = mean_.data(),
                   .log_std = log_std_.data(),
                   .noise = noise_.data(),
                   .log_std_min = model_.log_std_min,
                   .log_std_max = model_.log_std_max,
                   .action = action_.data(),
                   .spread = spread_.data(),
                   .is_free = is_free_.data(),
                   .log_prob = log_prob_.data()});
  for (int64_t i = 0; i < range.count; ++i) {
    std::copy_n(action_.data() + i * size, size,
                inputs.data() + (range.first + i) * input_stride_ + model_.observation_size);
    float log_pi = 0;
    for (int64_t j = 0; j < size; ++j) log_pi += log_prob_[i * size + j];
    log_pi_[i] = log_pi;
  }
}

void SacWorker::MakeTargets(const Range& range, const Draws& draws, float alpha) {
  const InputRows next = RowsOf(next_, range);
  networks_.actor_mlp.Forward(networks_.actor.data(), next, actor_);
  SampleActions(range, draws, Draw::kNextAction, next_);
  std::fill_n(least_.data(), range.count, std::numeric_limits<float>::infinity());
  for (const int32_t e : draws.target_critics) {
    MlpBlock& critic = critics_[0];
    networks_.critic_mlp.Forward(Critic(networks_.target_critics, e), next, critic);
    for (int64_t i = 0; i < range.count; ++i) least_[i] = std::min(least_[i], critic.output[i]);
  }
  for (int64_t i = 0; i < range.count; ++i) {
    y_[i] = SoftTargetOf(reward_[range.first + i], discount_[range.first + i], least_[i],
                         model_.backup_entropy ? alpha : 0, log_pi_[i]);
  }
}

void SacWorker::DifferentiateCriticsOf(const Range& range, const Draws& draws, float alpha) {
  MakeTargets(range, draws, alpha);
  for (int64_t e = 0; e < model_.num_critics; ++e) DifferentiateCritic(e, range);
}

// The first block serves all critics, one after the other, so that it stays in the cache.
void SacWorker::DifferentiateCritic(int64_t e, const Range& range) {
  const InputRows now = RowsOf(now_, range);
  const PaddedMlp& mlp = networks_.critic_mlp;
  MlpBlock& critic = critics_[0];
  mlp.Forward(Critic(networks_.critics, e), now, critic);
  for (int64_t i = 0; i < range.count; ++i) {
    const int64_t row = range.first + i;
    const float error = critic.output[i] - y_[i], weighted = weight_[row] * error;
    critic.output_gradient[i] = weighted * inverse_batch_;
    sums_.squared_error += weighted * error;
    absolute_errors_[row] += std::abs(error) * inverse_critics_;
    sums_.q += critic.output[i];
  }
  mlp.Backward(Critic(networks_.critics, e), Transposed(e), range.count, nullptr, critic);
  mlp.ParameterGradient(now, critic, /*add=*/range.first > 0,
                        critic_gradient_.data() + e * mlp.size());
}

void SacWorker::DifferentiateActorOf(const Range& range, const Draws& draws, float alpha) {
  const InputRows now = RowsOf(now_, range);
  const PaddedMlp& mlp = networks_.actor_mlp;
  mlp.Forward(networks_.actor.data(), now, actor_);
  SampleActions(range, draws, Draw::kAction, now_);
  for (int64_t i = 0; i < range.count; ++i) {
    sums_.log_pi += log_pi_[i];
    sums_.actor_loss += alpha * log_pi_[i];
  }
  DifferentiateByAction(range);
  const int64_t size = model_.action_size;
  for (int64_t i = 0; i < range.count; ++i) {
    float* const head = actor_.output_gradient.data() + i * mlp.output_stride();
    for (int64_t j = 0; j < size; ++j) {
      const int64_t element = i * size + j;
      const HeadGradient gradient =
          SquashGradient(action_[element], spread_[element], is_free_[element],
                         action_gradient_[i * action_stride() + j], alpha * inverse_batch_);
      head[j] = gradient.mean;
      head[size + j] = gradient.log_std;
    }
  }
  mlp.Backward(networks_.actor.data(), networks_.actor_transposed.data(), range.count, nullptr,
               actor_);
  mlp.ParameterGradient(now, actor_, /*add=*/range.first > 0, actor_gradient_.data());
}

void SacWorker::DifferentiateByAction(const Range& range) {
  const InputRows now = RowsOf(now_, range);
  std::fill_n(least_.data(), range.count, std::numeric_limits<float>::infinity());
  std::fill_n(action_gradient_.data(), range.count * action_stride(), 0.0f);
  for (int64_t e = 0; e < model_.num_critics; ++e) {
    MlpBlock& critic = critics_[e];
    networks_.critic_mlp.Forward(Critic(networks_.critics, e), now, critic);
    for (int64_t i = 0; i < range.count; ++i) {
      const float q = critic.output[i];
      ties_[i] = q < least_[i] ? 1 : ties_[i] + (q == least_[i] ? 1 : 0);
      least_[i] = std::min(least_[i], q);
    }
  }
  for (int64_t e = 0; e < model_.num_critics; ++e) AddGradientByAction(e, range);
}

// A critic is differentiated where it has a share in the objective only: where another one is less,
// its gradient is zero.
void SacWorker::AddGradientByAction(int64_t e, const Range& range) {
  const PaddedMlp& mlp = networks_.critic_mlp;
  MlpBlock& critic = critics_[e];
  picks_.clear();
  for (int64_t i = 0; i < range.count; ++i) {
    const float q = critic.output[i];
    if (!model_.actor_uses_mean_critic && q > least_[i]) continue;
    const float share = model_.actor_uses_mean_critic ? inverse_critics_ : 1 / ties_[i];
    critic.output_gradient[static_cast<int64_t>(picks_.size())] = -share * inverse_batch_;
    picks_.push_back(static_cast<int32_t>(i));
    sums_.actor_loss -= share * q;
  }
  const auto rows = static_cast<int64_t>(picks_.size());
  mlp.Backward(Critic(networks_.critics, e), Transposed(e), rows, picks_.data(), critic);
  mlp.InputGradient(Transposed(e), rows, critic, one_critics_.data());
  for (int64_t k = 0; k < rows; ++k) {
    float* const sum = action_gradient_.data() + picks_[k] * action_stride();
    const float* const more = one_critics_.data() + k * action_stride();
    for (int64_t j = 0; j < action_stride(); ++j) sum[j] += more[j];
  }
}

}  // namespace troupe::cpu
