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
#include "learner/ppo_steps.h"
#include "learner/state_files.h"

namespace troupe {
namespace {

using torch::Tensor;

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

}  // namespace

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
      ranks_(options.ranks),
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

absl::Status Ppo::Count(const Tensor& samples, RunningMoments& moments) {
  if (ranks_ != nullptr) return moments.AddOfAll(samples, *ranks_);
  moments.Add(samples);
  return absl::OkStatus();
}

absl::Status Ppo::CountReturns(const Unrolls& b) {
  if (!config_.scale_rewards()) return absl::OkStatus();
  return Count(PastReturns(b, config_.gamma()).masked_select(b.is_step).unsqueeze(1), returns_);
}

Tensor Ppo::ScaledRewards(const Unrolls& b) const {
  if (!config_.scale_rewards()) return b.r;
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
    if (absl::Status status = CountReturns(unrolls); !status.ok()) return status;
    if (absl::Status status = Improve(Prepare(unrolls)); !status.ok()) return status;
    if (config_.normalize_observations()) return Count(unrolls.s.flatten(0, 1), observations_);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates_ + 1, ": ", e.what()));
  }
  return absl::OkStatus();
}

}  // namespace troupe
