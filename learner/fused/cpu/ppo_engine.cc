#include "learner/fused/cpu/ppo_engine.h"

#include <algorithm>
#include <cmath>

namespace troupe::cpu {
namespace {

// Rows that pass through all layers together, so that what they leave behind stays in the cache.
constexpr int64_t kBlockRows = 128;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999;

}  // namespace

PpoEngine::Part::Part(const FlatNetwork& network, Unit unit, const Kernels& kernels,
                      int64_t more_parameters)
    : mlp(network, unit, kernels, /*first_wanted_input=*/network.layers[0].k),
      values(mlp.size() + more_parameters),
      m(values.size()),
      v(values.size()),
      gradient(values.size()),
      transposed(mlp.transposed_size()),
      block(mlp, kBlockRows) {}

// `more`: parameters behind those of the network.
void PpoEngine::Part::Load(const DescendedFloats& from, int64_t flat_size, int64_t more) {
  const auto load = [&](const float* flat, AlignedFloats& padded) {
    mlp.Pack(flat, 0, padded.data());
    std::copy_n(flat + flat_size, more, padded.data() + mlp.size());
  };
  load(from.values, values);
  load(from.m, m);
  load(from.v, v);
  adam_steps = from.steps;
  mlp.Transpose(values.data(), 0, 1, transposed.data());
}

void PpoEngine::Part::Store(DescendedFloats& to, int64_t flat_size, int64_t more) const {
  const auto store = [&](const AlignedFloats& padded, float* flat) {
    mlp.Unpack(padded.data(), 0, flat);
    std::copy_n(padded.data() + mlp.size(), more, flat + flat_size);
  };
  store(values, to.values);
  store(m, to.m);
  store(v, to.v);
  to.steps = adam_steps;
}

PpoEngine::PpoEngine(const proto::Ppo& config, const FlatNetwork& actor, Unit actor_unit,
                     const FlatNetwork& critic, Unit critic_unit, const Kernels& kernels)
    : config_(config),
      kernels_(kernels),
      observation_size_(actor.layers[0].k),
      action_size_(actor.head().n),
      actor_size_(actor.size),
      critic_size_(critic.size),
      actor_(actor, actor_unit, kernels, action_size_),
      critic_(critic, critic_unit, kernels, 0),
      s_(kBlockRows * RoomFor(observation_size_)),
      a_(kBlockRows * action_size_),
      log_mu_(kBlockRows),
      advantage_(kBlockRows),
      target_(kBlockRows),
      v_old_(kBlockRows) {}

void PpoEngine::Load(const DescendedFloats& actor, const DescendedFloats& critic) {
  actor_.Load(actor, actor_size_, action_size_);
  critic_.Load(critic, critic_size_, 0);
}

void PpoEngine::Store(DescendedFloats& actor, DescendedFloats& critic) const {
  actor_.Store(actor, actor_size_, action_size_);
  critic_.Store(critic, critic_size_, 0);
}

const PpoLoss* PpoEngine::Step(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                               double learning_rate) {
  const auto n = static_cast<int64_t>(rows.size());
  advantages_.resize(n);
  for (int64_t i = 0; i < n; ++i) advantages_[i] = steps.advantage[rows[i]];
  const AdvantageScale scale = ScaleOf(config_, advantages_.data(), n);
  BeginPpoLoss(config_, actor_.values.data() + actor_.mlp.size(), action_size_, loss_);
  for (int64_t begin = 0; begin < n; begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, n - begin);
    Gather(steps, rows.subspan(begin, count));
    Differentiate(count, n, scale, begin == 0);
  }
  if (config_.max_kl() > 0 && loss_.kl > config_.max_kl()) return nullptr;
  std::copy(loss_.log_std.begin(), loss_.log_std.end(), actor_.gradient.data() + actor_.mlp.size());
  const float factor = ClipFactor();
  Descend(actor_, factor, learning_rate);
  Descend(critic_, factor, learning_rate);
  return &loss_;
}

void PpoEngine::Gather(const PpoStepArrays& steps, absl::Span<const int64_t> rows) {
  const int64_t stride = RoomFor(observation_size_);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = rows[i];
    std::copy_n(steps.s + row * observation_size_, observation_size_, s_.data() + i * stride);
    std::copy_n(steps.a + row * action_size_, action_size_, a_.data() + i * action_size_);
    log_mu_[i] = steps.log_mu[row];
    advantage_[i] = steps.advantage[row];
    target_[i] = steps.target[row];
    v_old_[i] = steps.v_old[row];
  }
}

void PpoEngine::Differentiate(int64_t rows, int64_t minibatch_size, const AdvantageScale& scale,
                              bool first) {
  const InputRows s{s_.data(), RoomFor(observation_size_), rows};
  actor_.mlp.Forward(actor_.values.data(), s, actor_.block);
  critic_.mlp.Forward(critic_.values.data(), s, critic_.block);
  AddPpoRows(
      config_,
      {.rows = rows,
       .action_size = action_size_,
       .mean = actor_.block.output.data(),
       .mean_stride = actor_.mlp.output_stride(),
       .v = critic_.block.output.data(),
       .a = a_.data(),
       .log_mu = log_mu_.data(),
       .advantage = advantage_.data(),
       .target = target_.data(),
       .v_old = v_old_.data()},
      scale, minibatch_size,
      {.mean = actor_.block.output_gradient.data(), .v = critic_.block.output_gradient.data()},
      loss_);
  for (Part* part : {&actor_, &critic_}) {
    part->mlp.Backward(part->values.data(), part->transposed.data(), rows, nullptr, part->block);
    part->mlp.ParameterGradient(s, part->block, !first, part->gradient.data());
  }
}

// What the gradients are multiplied by, so that their norm is at most max_gradient_norm.
float PpoEngine::ClipFactor() const {
  const double most = config_.max_gradient_norm();
  if (most <= 0) return 1;
  const double norm =
      std::sqrt(kernels_.sum_squares(actor_.gradient.data(), actor_.gradient.size()) +
                kernels_.sum_squares(critic_.gradient.data(), critic_.gradient.size()));
  return norm <= most ? 1 : static_cast<float>(most / (norm + 1e-6));
}

void PpoEngine::Descend(Part& part, float gradient_scale, double learning_rate) {
  const auto t = static_cast<double>(++part.adam_steps);
  float* const gradient = part.gradient.data();
  kernels_.adam({.n = part.values.size(),
                 .gradients = &gradient,
                 .gradient_scale = gradient_scale,
                 .values = part.values.data(),
                 .m = part.m.data(),
                 .v = part.v.data(),
                 .rate = static_cast<float>(learning_rate / (1 - std::pow(kBeta1, t))),
                 .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(kBeta2, t))),
                 .epsilon = static_cast<float>(config_.adam_epsilon())});
  part.mlp.Transpose(part.values.data(), 0, 1, part.transposed.data());
}

}  // namespace troupe::cpu
