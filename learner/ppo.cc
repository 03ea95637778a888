#include "learner/ppo.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/frame_stack.h"
#include "common/image_encoder.h"
#include "common/policy_codec.h"
#include "learner/frame_stacks.h"
#include "learner/ppo_gradient.h"
#include "learner/ppo_objectives.h"
#include "learner/ppo_steps.h"
#include "learner/state_files.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr double kMinAdaptedRate = 1e-5;
constexpr double kMaxAdaptedRate = 1e-2;
constexpr double kRateFactor = 1.5;
// Stacks of images that go through the convolutions at once where no gradients are wanted.
constexpr int64_t kStacksAtOnce = 256;

PolicyMetadata PolicyOf(const proto::Ppo& config, const UnrollReader& reader) {
  const proto::Column& action = reader.action();
  PolicyMetadata policy;
  policy.observation_size = reader.observation_size();
  policy.action_size = reader.action_size();
  policy.distribution = reader.discrete() ? Distribution::kCategorical : Distribution::kGaussian;
  if (reader.discrete()) {
    policy.num_choices.assign(action.num_choices().begin(), action.num_choices().end());
  } else {
    policy.action_low.assign(action.low().begin(), action.low().end());
    policy.action_high.assign(action.high().begin(), action.high().end());
    policy.squash = config.squash_actions();
  }
  const bool has_images = reader.image().num_elements > 0;
  policy.network = PpoNetwork(config.actor(), has_images);
  policy.image_shape = reader.image().shape;
  if (has_images) policy.encoder = WithEncoderDefaults(config.encoder(), /*for_sac=*/false);
  policy.recurrence = NetworkOf(config.recurrence());
  policy.observation_clip = config.normalize_observations() ? config.observation_clip() : 0;
  return policy;
}

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
  }
};

absl::StatusOr<std::unique_ptr<Ppo>> Ppo::Create(const Options& options, const Layout& layout) {
  absl::StatusOr<UnrollReader> reader =
      UnrollReader::Create(layout, {.state_size = StateSize(options.config.recurrence()),
                                    .has_encoder = options.config.has_encoder(),
                                    .frame_stack = options.config.encoder().frame_stack()});
  if (!reader.ok()) return reader.status();
  PolicyMetadata policy = PolicyOf(options.config, *reader);
  if (absl::Status fits = CheckEncoder(EncoderOf(policy)); !fits.ok()) return fits;
  try {
    absl::StatusOr<std::unique_ptr<FusedPpo>> fused =
        options.make_engine != nullptr
            ? FusedPpo::Create(options.config, policy, options.make_engine)
            : absl::UnimplementedError("none was asked for");
    if (!fused.ok() && !absl::IsUnimplemented(fused.status())) return fused.status();
    return absl::WrapUnique(new Ppo(options, *std::move(reader), std::move(policy),
                                    layout.stride_bytes(), std::move(fused)));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("cannot build PPO's networks: ", e.what()));
  }
}

Ppo::Ppo(const Options& options, UnrollReader reader, PolicyMetadata policy, int64_t stride_bytes,
         absl::StatusOr<std::unique_ptr<FusedPpo>> fused)
    : config_(options.config),
      total_env_steps_(options.total_env_steps),
      reader_(std::move(reader)),
      policy_(std::move(policy)),
      stride_bytes_(stride_bytes),
      device_(fused.ok() ? torch::Device(torch::kCPU) : options.device),
      exact_kl_(config_.surrogate() == proto::KL_PENALTY ||
                config_.learning_rate_schedule() == proto::KL_ADAPTIVE),
      closed_gradient_(HasClosedGradient(config_) && !reader_.discrete() && device_.is_cpu()),
      fused_status_(fused.status()),
      fused_(fused.ok() ? *std::move(fused) : nullptr),
      actor_(policy_, torch::TensorOptions(torch::kFloat32).device(device_)),
      critic_(PpoNetwork(config_.critic(), !policy_.image_shape.empty()),
              PolicyShape(policy_).inputs, /*trains_inputs=*/!policy_.image_shape.empty(),
              torch::TensorOptions(torch::kFloat32).device(device_)),
      actor_adam_(actor_.parameters().values(), config_.learning_rate(), config_.adam_epsilon()),
      critic_adam_(critic_.parameters().values(), config_.learning_rate(), config_.adam_epsilon()),
      observations_(reader_.observation_size()),
      returns_(1),
      shuffle_(MakeGenerator(torch::kCPU, options.seed)),
      kl_coefficient_(config_.kl_coefficient()),
      learning_rate_(config_.learning_rate()) {
  actor_.parameters().Initialize(options.seed);
  critic_.parameters().Initialize(options.seed + 1);
  if (!reader_.discrete()) actor_.parameters().frozen().back().fill_(config_.initial_log_std());
}

Normalizer Ppo::ObservationNormalizer() const {
  return {observations_.Mean(), observations_.Std().reciprocal(), config_.observation_clip()};
}

Tensor Ppo::ScaledRewards(const Unrolls& b) {
  if (!config_.scale_rewards()) return b.r;
  returns_.Add(PastReturns(b, config_.gamma()).masked_select(b.is_step).unsqueeze(1));
  return (b.r / returns_.Std()).clamp(-config_.reward_clip(), config_.reward_clip());
}

Targets Ppo::MakeTargets(const Unrolls& b, const Tensor& r, const Tensor& s,
                         const Tensor& v) const {
  switch (config_.value_target()) {
    case proto::MONTE_CARLO:
      return Gae(b, r, v, config_.gamma(), /*lambda=*/1);
    case proto::N_STEP:
      return NStep(b, r, v, config_.gamma(), config_.n_step());
    case proto::V_TRACE: {
      const Tensor head = actor_.Head(s.narrow(1, 0, b.length()).flatten(0, 1));
      const Tensor log_pi = actor_.LogProb(head, b.a.flatten(0, 1).to(device_));
      const Tensor log_rho = log_pi.to(torch::kCPU).view_as(b.log_mu) - b.log_mu;
      return VTrace(b, r, v, log_rho, config_.gamma(), {config_.rho_bar(), config_.c_bar()});
    }
    default:
      return Gae(b, r, v, config_.gamma(), config_.gae_lambda());
  }
}

Tensor Ppo::SeeAll(const Unrolls& b, const Tensor& s) const {
  if (HasMemory(policy_.recurrence)) {
    return actor_.See({.x = s, .stored = b.memory.to(device_), .fresh = b.fresh.to(device_)});
  }
  if (!b.stacks.defined()) return s;
  const Tensor frames = b.frames.to(device_);
  const std::vector<Tensor> stacks = b.stacks.flatten(0, 1).to(device_).split(kStacksAtOnce);
  const std::vector<Tensor> vectors = s.flatten(0, 1).split(kStacksAtOnce);
  std::vector<Tensor> seen;
  for (size_t i = 0; i < stacks.size(); ++i) {
    seen.push_back(actor_.See(vectors[i], GatherStacks(frames, stacks[i])));
  }
  return torch::cat(seen).unflatten(0, {s.size(0), s.size(1)});
}

Ppo::Steps Ppo::Prepare(const Unrolls& b) {
  const torch::NoGradGuard no_grad;
  const Tensor r = ScaledRewards(b);
  const Tensor s =
      (config_.normalize_observations() ? ObservationNormalizer().Apply(b.s) : b.s).to(device_);
  const Tensor seen = SeeAll(b, s);
  const Tensor v = critic_.Value(seen.flatten(0, 1)).to(torch::kCPU).view({b.num_unrolls(), -1});
  const Targets targets = MakeTargets(b, r, seen, v);
  Steps rows{.s = s,
             .a = b.a,
             .log_mu = b.log_mu,
             .advantage = targets.advantage,
             .target = targets.value,
             .v_old = v};
  if (exact_kl_) rows.old_head = actor_.Head(seen.flatten(0, 1)).unflatten(0, {s.size(0), -1});
  if (HasMemory(policy_.recurrence)) {
    rows.memory = b.memory;
    rows.fresh = b.fresh;
    rows.is_step = b.is_step;
    return ForAll(
        InSequences(rows, config_.unroll_length(), config_.recurrence().sequence_length()),
        [&](const Tensor& all) { return all.to(device_); });
  }
  rows.stacks = b.stacks;
  if (b.frames.defined()) rows.frames = b.frames.to(device_);
  const Tensor which = b.is_step.flatten().nonzero().squeeze(1);
  return ForAll(rows, [&](const Tensor& all) {  // [B, T or more, ...]
    return all.narrow(1, 0, b.length())
        .flatten(0, 1)
        .index_select(0, which.to(all.device()))
        .to(device_);
  });
}

Ppo::Steps Ppo::Seen(const Steps& b) const {
  if (b.stacks.defined()) {
    Steps seen = b;
    seen.s = actor_.See(b.s, GatherStacks(b.frames, b.stacks));
    return seen;
  }
  if (!b.in_sequences()) return b;
  return StepsOf(b, actor_.See({.x = b.s, .stored = b.memory, .fresh = b.fresh}));
}

absl::Status Ppo::Improve(const Steps& steps) {
  const int64_t n = steps.size(), rows = n * (steps.in_sequences() ? steps.s.size(1) : 1);
  const int64_t size = config_.minibatch_size() == 0 ? rows : config_.minibatch_size();
  const int64_t count = std::clamp<int64_t>((rows + size / 2) / size, 1, n);
  std::vector<Tensor> orders;
  for (int64_t epoch = 0; epoch < config_.epochs(); ++epoch) {
    orders.push_back(torch::randperm(n, shuffle_, torch::kInt64));
  }
  const absl::StatusOr<Distance> distance = fused_ != nullptr
                                                ? ImproveFused(steps, torch::stack(orders), count)
                                                : ImproveByReference(steps, orders, count);
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

Ppo::Distance Ppo::ImproveByReference(const Steps& steps, const std::vector<Tensor>& orders,
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
      near = minibatch.size() == 0 || StepOn(minibatch, old_log_std, &distance);
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

Tensor Ppo::Surrogate(const Steps& b, const Tensor& log_pi, const Tensor& kl) const {
  const Tensor advantage = config_.normalize_advantages() ? Standardize(b.advantage) : b.advantage;
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

bool Ppo::StepOn(const Steps& b, const Tensor& old_log_std, Distance* distance) {
  const bool near = closed_gradient_ ? DifferentiateInClosedForm(b, distance)
                                     : Differentiate(b, old_log_std, distance);
  if (!near) return false;
  ClipGradients();
  actor_adam_.Step(actor_.parameters().values(), actor_.parameters().gradients());
  critic_adam_.Step(critic_.parameters().values(), critic_.parameters().gradients());
  ++updates_;
  ++distance->minibatches;
  return true;
}

bool Ppo::DifferentiateInClosedForm(const Steps& b, Distance* distance) {
  const Tensor head = actor_.Head(b.s), v = critic_.Value(b.s);
  const Tensor of_head = torch::empty_like(head), of_v = torch::empty_like(v);
  const auto floats = [](const Tensor& tensor) { return tensor.data_ptr<float>(); };
  const int64_t n = head.size(0), size = head.size(1);
  PpoLoss loss;
  BeginPpoLoss(config_, floats(actor_.log_std()), size, loss);
  AddPpoRows(config_,
             {.rows = n,
              .action_size = size,
              .mean = floats(head),
              .mean_stride = size,
              .v = floats(v.contiguous()),
              .a = floats(b.a),
              .log_mu = floats(b.log_mu),
              .advantage = floats(b.advantage),
              .target = floats(b.target),
              .v_old = floats(b.v_old)},
             ScaleOf(config_, floats(b.advantage), n), n,
             {.mean = floats(of_head), .v = floats(of_v)}, loss);
  if (config_.max_kl() > 0 && loss.kl > config_.max_kl()) return false;
  torch::autograd::backward({head, v}, {of_head, of_v});
  actor_.log_std().mutable_grad().add_(torch::tensor(loss.log_std, torch::kFloat32));
  distance->Add(loss);
  return true;
}

bool Ppo::Differentiate(const Steps& b, const Tensor& old_log_std, Distance* distance) {
  const Tensor head = actor_.Head(b.s);
  const Tensor log_pi = actor_.LogProb(head, b.a);
  const Tensor kl = exact_kl_ ? actor_.Kl(b.old_head, old_log_std, head).mean()
                              : ApproximateKl(log_pi.detach(), b.log_mu);
  const double distance_now = kl.item<double>();
  if (config_.max_kl() > 0 && distance_now > config_.max_kl()) return false;
  if (config_.learning_rate_schedule() == proto::KL_ADAPTIVE) AdaptLearningRate(distance_now);

  const Tensor surrogate = Surrogate(b, log_pi, kl);
  const Tensor value_loss =
      ValueObjective(critic_.Value(b.s), b.v_old, b.target, config_.value_clip());
  const Tensor entropy = actor_.Entropy(head);
  (config_.value_coefficient() * value_loss - surrogate - config_.entropy_coefficient() * entropy)
      .backward();

  const torch::NoGradGuard no_grad;
  const Tensor far = ((log_pi - b.log_mu).exp() - 1).abs() > config_.clip_epsilon();
  distance->sum_kl += distance_now;
  distance->sum_clipped += far.to(torch::kFloat32).mean().item<double>();
  distance->sum_policy_loss -= surrogate.item<double>();
  distance->sum_value_loss += value_loss.item<double>();
  distance->sum_entropy += entropy.item<double>();
  return true;
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

void Ppo::SetLearningRate(double learning_rate) {
  learning_rate_ = learning_rate;
  actor_adam_.set_learning_rate(learning_rate);
  critic_adam_.set_learning_rate(learning_rate);
}

absl::Status Ppo::Update(const WindowBatch& batch, int64_t env_steps) {
  const int64_t length = LeadRows(config_) + config_.unroll_length() + 1;
  if (batch.num_windows < 1 || batch.window_length != length ||
      batch.stride_bytes != stride_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat(
        batch.num_windows, " windows of ", batch.window_length, " rows of ", batch.stride_bytes,
        " bytes; PPO wants windows of ", length, " rows of ", stride_bytes_));
  }
  try {
    if (config_.learning_rate_schedule() == proto::LINEAR) {
      const double left =
          1 - static_cast<double>(env_steps) / static_cast<double>(total_env_steps_);
      SetLearningRate(config_.learning_rate() * std::clamp(left, 0.0, 1.0));
    }
    const Unrolls unrolls = reader_.Read(batch.data(), batch.num_windows, batch.window_length);
    const Steps steps = Prepare(unrolls);
    if (steps.size() > 0) {
      if (absl::Status status = Improve(steps); !status.ok()) return status;
    }
    if (config_.normalize_observations()) observations_.Add(unrolls.s.flatten(0, 1));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates_ + 1, ": ", e.what()));
  }
  return absl::OkStatus();
}

}  // namespace troupe
