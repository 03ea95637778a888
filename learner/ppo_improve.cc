// The part of Ppo that takes the gradient steps of a batch.
#include <algorithm>
#include <cmath>
#include <vector>

#include "learner/ppo.h"
#include "learner/ppo_gradient.h"
#include "learner/ppo_objectives.h"
#include "learner/shared_sums.h"
#include "learner/state_files.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr double kMinAdaptedRate = 1e-5;
constexpr double kMaxAdaptedRate = 1e-2;
constexpr double kRateFactor = 1.5;

double ExplainedVariance(const Ppo::Steps& steps) {
  const auto variance = [&](const Tensor& of_rows) {
    const Tensor all = steps.in_sequences() ? of_rows.masked_select(steps.is_step) : of_rows;
    return all.var(/*unbiased=*/false).item<double>();
  };
  const double of_targets = variance(steps.target);
  return of_targets == 0 ? 0 : 1 - variance(steps.target - steps.v_old) / of_targets;
}

}  // namespace

struct Ppo::Distance {
  double sum_kl = 0;
  double sum_clipped = 0;
  double sum_policy_loss = 0;
  double sum_value_loss = 0;
  double sum_entropy = 0;
  int64_t minibatches = 0;

  void Add(const PpoLoss& loss) {
    sum_kl += loss.kl;
    sum_clipped += loss.clip_fraction;
    sum_policy_loss -= loss.surrogate;
    sum_value_loss += loss.value_loss;
    sum_entropy += loss.entropy;
    ++minibatches;
  }
};

// A rank's part of a minibatch.
struct Ppo::Share {
  double of_rows = 1;    // of the minibatch's, that are here
  int64_t rows = 0;      // of the whole minibatch
  AdvantageScale scale;  // of the whole minibatch's advantages; without ranks of the CPU's only
};

absl::Status Ppo::Improve(const Steps& steps) {
  const int64_t n = steps.size();
  const absl::StatusOr<int64_t> count = MinibatchesOf(steps);
  if (!count.ok() || *count == 0) return count.status();
  const std::vector<Tensor> orders = DrawOrders(n);
  const absl::StatusOr<Distance> distance = fused_ != nullptr
                                                ? ImproveFused(steps, torch::stack(orders), *count)
                                                : ImproveByReference(steps, orders, *count);
  if (!distance.ok()) return distance.status();
  const double m = std::max<double>(1, static_cast<double>(distance->minibatches));
  if (config_.surrogate() == proto::KL_PENALTY && config_.adaptive_kl_coefficient()) {
    kl_coefficient_ =
        AdaptKlCoefficient(kl_coefficient_, distance->sum_kl / m, config_.kl_target());
  }
  statistics_ = {{"kl", distance->sum_kl / m},
                 {"clip_fraction", distance->sum_clipped / m},
                 {"policy_loss", distance->sum_policy_loss / m},
                 {"value_loss", distance->sum_value_loss / m},
                 {"entropy", distance->sum_entropy / m},
                 {"learning_rate", learning_rate_},
                 {"explained_variance", ExplainedVariance(steps)}};
  return absl::OkStatus();
}

// How many minibatches a pass has, the same at each rank; 0: one of them has no steps.
absl::StatusOr<int64_t> Ppo::MinibatchesOf(const Steps& steps) {
  int64_t least = steps.size();
  double rows = static_cast<double>(least * (steps.in_sequences() ? steps.s.size(1) : 1));
  if (ranks_ != nullptr) {
    if (absl::Status status = ranks_->Sum(absl::MakeSpan(&rows, 1)); !status.ok()) return status;
    rows /= ranks_->size();
    const absl::StatusOr<int64_t> of_all = ranks_->Least(least);
    if (!of_all.ok()) return of_all;
    least = *of_all;
  }
  if (least == 0) return 0;
  const int64_t whole = std::llround(rows);
  const int64_t size = config_.minibatch_size() == 0 ? whole : config_.minibatch_size();
  return std::clamp<int64_t>((whole + size / 2) / size, 1, least);
}

// Each rank in an order of its own, though all generators stay the same.
std::vector<Tensor> Ppo::DrawOrders(int64_t steps) {
  at::Generator generator = shuffle_;
  if (ranks_ != nullptr) {
    const int64_t drawn =
        torch::randint(int64_t{1} << 48, {1}, shuffle_, torch::kInt64).item<int64_t>();
    generator = MakeGenerator(torch::kCPU, drawn + ranks_->rank());
  }
  std::vector<Tensor> orders;
  for (int64_t epoch = 0; epoch < config_.epochs(); ++epoch) {
    orders.push_back(torch::randperm(steps, generator, torch::kInt64));
  }
  return orders;
}

absl::StatusOr<Ppo::Distance> Ppo::ImproveByReference(const Steps& steps,
                                                      const std::vector<Tensor>& orders,
                                                      int64_t minibatches) {
  const int64_t n = steps.size();
  const Tensor old_log_std =
      reader_.discrete() ? Tensor() : actor_.parameters().frozen().back().clone();
  Distance distance;
  bool near = true;
  for (size_t epoch = 0; epoch < orders.size() && near; ++epoch) {
    const Tensor order = orders[epoch].to(device_);
    const Steps shuffled =
        ForAll(steps, [&](const Tensor& all) { return all.index_select(0, order); });
    distance = {};
    for (int64_t i = 0; i < minibatches && near; ++i) {
      const int64_t begin = i * n / minibatches, end = (i + 1) * n / minibatches;
      const Steps minibatch = Seen(
          ForAll(shuffled, [&](const Tensor& all) { return all.narrow(0, begin, end - begin); }));
      if (minibatch.size() == 0) continue;
      const absl::StatusOr<bool> taken = StepOn(minibatch, old_log_std, &distance);
      if (!taken.ok()) return taken.status();
      near = *taken;
    }
  }
  return distance;
}

absl::StatusOr<Ppo::Distance> Ppo::ImproveFused(const Steps& steps, const Tensor& order,
                                                int64_t minibatches) {
  const absl::StatusOr<PpoProgress> progress =
      fused_->Improve(steps, order, minibatches, learning_rate_, {actor_.parameters(), actor_adam_},
                      {critic_.parameters(), critic_adam_});
  if (!progress.ok()) return progress.status();
  updates_ += progress->steps;
  return Distance{.sum_kl = progress->kl,
                  .sum_clipped = progress->clip_fraction,
                  .sum_policy_loss = -progress->surrogate,
                  .sum_value_loss = progress->value_loss,
                  .sum_entropy = progress->entropy,
                  .minibatches = progress->last_epoch_steps};
}

Tensor Ppo::Standardized(const Tensor& advantage, const Share& share) const {
  if (!config_.normalize_advantages()) return advantage;
  if (ranks_ == nullptr) return Standardize(advantage);
  return (advantage - share.scale.mean) * share.scale.inverse_std;
}

Tensor Ppo::Surrogate(const Steps& b, const Share& share, const Tensor& log_pi,
                      const Tensor& kl) const {
  const Tensor advantage = Standardized(b.advantage, share);
  switch (config_.surrogate()) {
    case proto::POLICY_GRADIENT:
      return PolicyGradientSurrogate(log_pi, advantage);
    case proto::IMPORTANCE:
      return ImportanceSurrogate(log_pi, b.log_mu, advantage);
    case proto::KL_PENALTY:
      return ImportanceSurrogate(log_pi, b.log_mu, advantage) - kl_coefficient_ * kl;
    default:
      return ClippedSurrogate(log_pi, b.log_mu, advantage, config_.clip_epsilon());
  }
}

absl::StatusOr<bool> Ppo::StepOn(const Steps& b, const Tensor& old_log_std, Distance* distance) {
  const absl::StatusOr<Share> share = ShareOf(b.advantage);
  if (!share.ok()) return share.status();
  PpoLoss loss;
  if (closed_gradient_) {
    DifferentiateInClosedForm(b, *share, loss);
  } else {
    Differentiate(b, old_log_std, *share, loss);
  }
  if (absl::Status status = SumOverRanks(loss); !status.ok()) return status;
  if (config_.max_kl() > 0 && loss.kl > config_.max_kl()) {
    actor_.parameters().gradients().zero_();
    critic_.parameters().gradients().zero_();
    return false;
  }
  if (config_.learning_rate_schedule() == proto::KL_ADAPTIVE) AdaptLearningRate(loss.kl);
  ClipGradients();
  actor_adam_.Step(actor_.parameters().values(), actor_.parameters().gradients());
  critic_adam_.Step(critic_.parameters().values(), critic_.parameters().gradients());
  ++updates_;
  distance->Add(loss);
  return true;
}

absl::StatusOr<Ppo::Share> Ppo::ShareOf(const Tensor& advantage) {
  const int64_t n = advantage.size(0);
  if (ranks_ == nullptr) {
    return Share{.rows = n,
                 .scale = closed_gradient_ ? ScaleOf(config_, advantage.data_ptr<float>(), n)
                                           : AdvantageScale()};
  }
  const Tensor all = advantage.to(torch::kCPU, torch::kFloat64);
  double sums[] = {static_cast<double>(n), all.sum().item<double>()};
  if (absl::Status status = ranks_->Sum(absl::MakeSpan(sums)); !status.ok()) return status;
  double squares = (all - sums[1] / sums[0]).square().sum().item<double>();
  if (absl::Status status = ranks_->Sum(absl::MakeSpan(&squares, 1)); !status.ok()) return status;
  const int64_t rows = std::llround(sums[0]);
  return Share{.of_rows = static_cast<double>(n) / sums[0],
               .rows = rows,
               .scale = ScaleOf(config_, rows, sums[1], squares)};
}

// Replaces the gradients and the loss by their sums over the ranks.
absl::Status Ppo::SumOverRanks(PpoLoss& loss) {
  if (ranks_ == nullptr) return absl::OkStatus();
  const torch::NoGradGuard no_grad;
  const Tensor &of_actor = actor_.parameters().gradients(),
               &of_critic = critic_.parameters().gradients();
  double* const losses[] = {&loss.surrogate, &loss.value_loss, &loss.kl, &loss.clip_fraction,
                            &loss.entropy};
  std::vector<double> given;
  for (const double* value : losses) given.push_back(*value);
  const Tensor all = torch::cat({of_actor, of_critic, torch::tensor(given, of_actor.options())});
  if (absl::Status status = troupe::SumOverRanks(all, *ranks_); !status.ok()) return status;
  of_actor.copy_(all.narrow(0, 0, of_actor.numel()));
  of_critic.copy_(all.narrow(0, of_actor.numel(), of_critic.numel()));
  const Tensor sums = all.narrow(0, of_actor.numel() + of_critic.numel(), given.size())
                          .to(torch::kCPU, torch::kFloat64);
  for (size_t i = 0; i < given.size(); ++i) *losses[i] = sums.data_ptr<double>()[i];
  return absl::OkStatus();
}

void Ppo::DifferentiateInClosedForm(const Steps& b, const Share& share, PpoLoss& loss) {
  const Tensor head = actor_.Head(b.s), v = critic_.Value(b.s);
  const Tensor of_head = torch::empty_like(head), of_v = torch::empty_like(v);
  const auto floats = [](const Tensor& tensor) { return tensor.data_ptr<float>(); };
  const int64_t n = head.size(0), size = head.size(1);
  BeginPpoLoss(config_, floats(actor_.log_std()), size, share.of_rows, loss);
  AddGaussianRows(config_,
                  {.rows = n,
                   .action_size = size,
                   .head = floats(head),
                   .head_stride = size,
                   .a = floats(b.a),
                   .log_mu = floats(b.log_mu),
                   .advantage = floats(b.advantage)},
                  share.scale, share.rows, floats(of_head), loss);
  AddValueRows(config_,
               {.rows = n,
                .v = floats(v.contiguous()),
                .target = floats(b.target),
                .v_old = floats(b.v_old)},
               share.rows, floats(of_v), loss);
  loss.entropy *= share.of_rows;
  torch::autograd::backward({head, v}, {of_head, of_v});
  actor_.log_std().mutable_grad().add_(torch::tensor(loss.log_std, torch::kFloat32));
}

void Ppo::Differentiate(const Steps& b, const Tensor& old_log_std, const Share& share,
                        PpoLoss& loss) {
  const Tensor head = actor_.Head(b.s);
  const Tensor log_pi = actor_.LogProb(head, b.a);
  const Tensor kl = exact_kl_ ? actor_.Kl(b.old_head, old_log_std, head).mean()
                              : ApproximateKl(log_pi.detach(), b.log_mu);
  const Tensor surrogate = Surrogate(b, share, log_pi, kl);
  const Tensor value_loss =
      ValueObjective(critic_.Value(b.s), b.v_old, b.target, config_.value_clip());
  const Tensor entropy = actor_.Entropy(head);
  const Tensor objective = config_.value_coefficient() * value_loss - surrogate -
                           config_.entropy_coefficient() * entropy;
  (ranks_ == nullptr ? objective : objective * share.of_rows).backward();

  const torch::NoGradGuard no_grad;
  const Tensor far = ((log_pi - b.log_mu).exp() - 1).abs() > config_.clip_epsilon();
  const auto part = [&](const Tensor& mean) { return share.of_rows * mean.item<double>(); };
  loss.kl = part(kl);
  loss.clip_fraction = part(far.to(torch::kFloat32).mean());
  loss.surrogate = part(surrogate);
  loss.value_loss = part(value_loss);
  loss.entropy = part(entropy);
}

void Ppo::ClipGradients() {
  if (config_.max_gradient_norm() <= 0) return;
  const Tensor& of_actor = actor_.parameters().gradients();
  const Tensor& of_critic = critic_.parameters().gradients();
  const double norm =
      std::sqrt(of_actor.dot(of_actor).item<double>() + of_critic.dot(of_critic).item<double>());
  if (norm <= config_.max_gradient_norm()) return;
  of_actor.mul_(config_.max_gradient_norm() / (norm + 1e-6));
  of_critic.mul_(config_.max_gradient_norm() / (norm + 1e-6));
}

void Ppo::AdaptLearningRate(double kl) {
  double rate = learning_rate_;
  if (kl > 2 * config_.kl_target()) rate = std::max(rate / kRateFactor, kMinAdaptedRate);
  if (kl < config_.kl_target() / 2) rate = std::min(rate * kRateFactor, kMaxAdaptedRate);
  SetLearningRate(rate);
}

}  // namespace troupe
