#include "learner/sac.h"

#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/frame_stack.h"
#include "common/policy_codec.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"
#include "learner/frame_stacks.h"
#include "learner/objectives.h"
#include "learner/sac_policy.h"
#include "learner/shared_sums.h"
#include "learner/state_files.h"

namespace troupe {

using torch::Tensor;

namespace {

// Replayed actions are at most this far from 0; tanh of nothing is 1.
constexpr double kMostSquashed = 1 - 1e-6;

GaussianActor::Share ShareOf(const RankGroup* ranks) {
  if (ranks == nullptr) return {};
  return {.rank = ranks->rank(), .size = ranks->size()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sac>> Sac::Create(const Options& options, const Layout& layout) {
  absl::StatusOr<TransitionReader> reader =
      TransitionReader::Create(layout, {.n_step = options.config.n_step(),
                                        .gamma = options.config.gamma(),
                                        .recurrence = options.config.recurrence(),
                                        .has_encoder = options.config.has_encoder(),
                                        .frame_stack = options.config.encoder().frame_stack(),
                                        .tensors = options.tensors});
  if (!reader.ok()) return reader.status();
  const absl::Status fits = CheckEncoder(SacEncoder(options.config, *reader));
  if (!fits.ok()) return fits;
  try {
    return absl::WrapUnique(new Sac(options, *std::move(reader), layout.stride_bytes()));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("cannot build SAC's networks: ", e.what()));
  }
}

Sac::Sac(const Options& options, TransitionReader reader, int64_t stride_bytes)
    : config_(options.config),
      ranks_(options.ranks),
      prioritized_(options.prioritized),
      target_entropy_(-options.config.target_entropy_scale() * reader.action_size()),
      on_v_(options.config.critic_kind() == proto::V_FROM_REPLAY),
      reader_(std::move(reader)),
      stride_bytes_(stride_bytes),
      sizes_{.observation = reader_.observation_size(),
             .action = on_v_ ? 0 : reader_.action_size(),
             .encoder = SacEncoder(config_, reader_)},
      actor_(config_, {sizes_.observation, reader_.action_size(), sizes_.encoder}, options.tensors,
             ShareOf(options.ranks)),
      critics_(config_, sizes_, options.tensors),
      target_critics_(config_, sizes_, options.tensors),
      log_alpha_(torch::full({1}, std::log(config_.initial_alpha()), options.tensors)),
      actor_adam_(actor_.parameters().values(), config_.actor_learning_rate()),
      critic_adam_(critics_.parameters().values(), config_.critic_learning_rate()),
      alpha_adam_(log_alpha_, config_.alpha_learning_rate()),
      generator_(MakeGenerator(options.tensors.device(), 3 * options.seed + 2)) {
  actor_.parameters().Initialize(3 * options.seed);
  critics_.parameters().Initialize(3 * options.seed + 1);
  target_critics_.parameters().values().copy_(critics_.parameters().values());
  const auto graphed = [&](bool with_actor) {
    return MakeGraphedStep(options.tensors.device(), generator_,
                           [this, with_actor](const auto& b) { return TakeStep(b, with_actor); });
  };
  graphed_step_ = graphed(true);
  graphed_critics_step_ = graphed(false);
}

Tensor Sac::ShiftedStacks(const Tensor& frames, const Tensor& stacks) {
  const int64_t most = config_.encoder().random_shift(), batch = stacks.size(0);
  if (most == 0) return GatherStacks(frames, stacks);
  const GaussianActor::Share share = ShareOf(ranks_);
  const Tensor shift =
      torch::randint(-most, most + 1, {share.size * batch, 2}, generator_, stacks.options());
  return GatherShifted(frames, stacks, shift.narrow(0, share.rank * batch, batch));
}

Sac::Convolved Sac::Convolve(const Transitions& b) {
  if (!b.images) return {};
  const Tensor now = ShiftedStacks(b.images->frames, b.images->now);
  const Tensor next = ShiftedStacks(b.images->frames, b.images->next);
  Convolved convolved;
  convolved.by_critics.now = critics_.Convolve(now);
  const torch::NoGradGuard no_grad;
  convolved.by_critics.next = critics_.Convolve(next);
  convolved.by_targets.next = target_critics_.Convolve(next);
  return convolved;
}

absl::Status Sac::Step(const Transitions& b) {
  const bool with_actor = (updates_ + 1) % config_.actor_update_interval() == 0;
  const auto& graphed = with_actor ? graphed_step_ : graphed_critics_step_;
  absl::Status status = graphed != nullptr ? graphed->Take(b) : TakeStep(b, with_actor);
  if (status.ok()) ++updates_;
  return status;
}

absl::Status Sac::TakeStep(const Transitions& b, bool with_actor) {
  const bool has_entropy = config_.entropy() != proto::NO_ENTROPY;
  const Tensor alpha = has_entropy ? log_alpha_.exp() : torch::zeros_like(log_alpha_);
  const Convolved convolved = Convolve(b);
  const SeenTransitions actor_sees = actor_.See(b, convolved.by_critics);
  absl::Status status = ImproveCritics(b, convolved, actor_sees.s_next, alpha);
  if (!status.ok()) return status;
  if (with_actor) {
    // As DrQ-v2 does (arXiv 2107.09645), by the convolutions as they were before this update.
    ConvolvedTransitions before = convolved.by_critics;
    if (before.now.defined()) before.now = before.now.detach();
    const Sight sight{.actor = actor_sees, .critics = critics_.SeeFrozen(b, before)};
    const absl::StatusOr<Tensor> log_pi = ImproveActor(b, sight, alpha);
    if (!log_pi.ok()) return log_pi.status();
    ImproveTemperature(*log_pi);
  }
  const torch::NoGradGuard no_grad;
  target_critics_.parameters().values().lerp_(critics_.parameters().values(), config_.tau());
  return absl::OkStatus();
}

absl::Status Sac::ImproveCritics(const Transitions& b, const Convolved& convolved,
                                 const Tensor& s_next_of_actor, const Tensor& alpha) {
  Tensor y;
  {
    const torch::NoGradGuard no_grad;
    const ActionSample next = actor_.Sample(s_next_of_actor, generator_);
    const Tensor q_next = MinOfSubset(
        target_critics_.FrozenValues(target_critics_.SeeFrozen(b, convolved.by_targets).s_next,
                                     CriticAction(next.action), generator_));
    y = SoftTarget(b, q_next, next.log_prob,
                   config_.backup_entropy() ? alpha : torch::zeros_like(alpha));
  }
  const ConvolvedTransitions now{convolved.by_critics.now, {}};
  const Tensor q = critics_.Values(critics_.See(b, now).s, CriticAction(b.a), generator_);
  const Tensor j_q = CriticObjective(q, y, b.weight);
  j_q.backward();
  if (absl::Status status = AverageOverRanks({critics_.parameters().gradients()}); !status.ok()) {
    return status;
  }
  critic_adam_.Step(critics_.parameters().values(), critics_.parameters().gradients());
  q_loss_ = j_q.detach();
  q_mean_ = q.detach();
  if (prioritized_) {
    td_error_ = (q_mean_ - y).abs().mean(0);
    // What is no transition is worth no draw.
    if (b.weight) td_error_.masked_fill_(b.weight->eq(0), 0);
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Sac::ImproveActor(const Transitions& b, const Sight& sight,
                                         const Tensor& alpha) {
  const ActionSample now = actor_.Sample(sight.actor.s, generator_);
  const Tensor j_pi = ActorLoss(b, sight, now, alpha);
  j_pi.backward();
  Tensor log_pi = now.log_prob.detach();
  if (ranks_ != nullptr) log_pi = log_pi.mean().view({1});
  if (absl::Status status = AverageOverRanks({actor_.parameters().gradients(), log_pi});
      !status.ok()) {
    return status;
  }
  actor_adam_.Step(actor_.parameters().values(), actor_.parameters().gradients());
  actor_loss_ = j_pi.detach();
  entropy_ = -log_pi.mean();
  return log_pi;
}

absl::Status Sac::AverageOverRanks(const std::vector<Tensor>& vectors) {
  if (ranks_ == nullptr) return absl::OkStatus();
  const torch::NoGradGuard no_grad;
  const Tensor all = torch::cat(vectors);
  if (absl::Status status = SumOverRanks(all, *ranks_); !status.ok()) return status;
  all.div_(ranks_->size());
  int64_t begin = 0;
  for (const Tensor& vector : vectors) {
    vector.copy_(all.narrow(0, begin, vector.numel()));
    begin += vector.numel();
  }
  return absl::OkStatus();
}

Tensor Sac::Aggregate(const Tensor& q) const {
  return config_.actor_uses_mean_critic() ? q.mean(0) : q.amin(0);
}

Tensor Sac::ActorLoss(const Transitions& b, const Sight& sight, const ActionSample& now,
                      const Tensor& alpha) {
  if (on_v_) return ReplayedActionLoss(b, sight, now, alpha);
  if (config_.actor_gradient() == proto::SCORE_FUNCTION) {
    return ScoreFunctionLoss(sight, now, alpha);
  }
  const Tensor q = critics_.FrozenValues(sight.critics.s, now.action, generator_);
  return ActorObjective(Aggregate(q), now.log_prob, alpha);
}

Tensor Sac::ScoreFunctionLoss(const Sight& sight, const ActionSample& now, const Tensor& alpha) {
  const Tensor& s = sight.actor.s;
  const auto soft_value = [&](const ActionSample& sample) {
    const Tensor q = Aggregate(critics_.FrozenValues(sight.critics.s, sample.action, generator_));
    return q - alpha * sample.log_prob;
  };
  Tensor advantage;
  {
    const torch::NoGradGuard no_grad;
    advantage = soft_value(now);
    // Of another action, or the baseline would depend on this one.
    if (config_.score_function_baseline()) {
      advantage = advantage - soft_value(actor_.Sample(s, generator_));
    }
  }
  return ScoreFunctionObjective(actor_.LogProb(s, now.unsquashed.detach(), generator_), advantage);
}

Tensor Sac::ReplayedActionLoss(const Transitions& b, const Sight& sight, const ActionSample& now,
                               const Tensor& alpha) {
  Tensor advantage;
  {
    const torch::NoGradGuard no_grad;
    const auto value = [&](const Tensor& s) {
      return Aggregate(critics_.FrozenValues(s, CriticAction(b.a), generator_));
    };
    const Tensor v = value(sight.critics.s), v_next = value(sight.critics.s_next);
    advantage = b.r + b.gamma * (1 - b.d) * v_next - v;
  }
  const Tensor unsquashed = b.a.clamp(-kMostSquashed, kMostSquashed).atanh();
  return ScoreFunctionObjective(actor_.LogProb(sight.actor.s, unsquashed, generator_), advantage) +
         (alpha * now.log_prob).mean();
}

void Sac::ImproveTemperature(const Tensor& log_pi) {
  if (config_.entropy() != proto::AUTOMATIC_TEMPERATURE) return;
  alpha_adam_.Step(log_alpha_, TemperatureGradient(log_pi, target_entropy_).view({1}));
}

// The minimum over `min_subset` critics, drawn anew; [E, B] to [B].
Tensor Sac::MinOfSubset(const Tensor& q) {
  if (config_.min_subset() >= config_.num_critics()) return q.amin(0);
  const Tensor order = torch::randperm(q.size(0), generator_, q.options().dtype(torch::kInt64));
  return q.index_select(0, order.narrow(0, 0, config_.min_subset())).amin(0);
}

absl::Status Sac::Update(const WindowBatch& batch, int64_t env_steps) {
  const int64_t length = SacWindowLength(config_);
  if (batch.num_windows < 1 || batch.window_length != length ||
      batch.stride_bytes != stride_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat(
        batch.num_windows, " windows of ", batch.window_length, " rows of ", batch.stride_bytes,
        " bytes; SAC wants windows of ", length, " rows of ", stride_bytes_));
  }
  try {
    Transitions b = reader_.Read(batch.data(), batch.num_windows);
    if (prioritized_) {
      const Tensor weight =
          torch::tensor(prioritized_->Weights(batch, env_steps)).to(log_alpha_.options());
      b.weight = b.weight ? weight * *b.weight : weight;
    }
    return b.s.size(0) > 0 ? Step(b) : absl::OkStatus();
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates_ + 1, ": ", e.what()));
  }
}

std::vector<float> Sac::Priorities() const {
  if (!td_error_.defined()) return {};
  const Tensor errors = td_error_.to(torch::kCPU, torch::kFloat32);
  return Prioritized::Priorities({errors.data_ptr<float>(), static_cast<size_t>(errors.numel())});
}

std::map<std::string, double> Sac::Statistics() const {
  std::map<std::string, double> statistics;
  if (!q_loss_.defined()) return statistics;
  statistics["q_loss"] = q_loss_.item<double>();
  statistics["q_mean"] = q_mean_.mean().item<double>();
  statistics["alpha"] = log_alpha_.exp().item<double>();
  if (!actor_loss_.defined()) return statistics;
  statistics["actor_loss"] = actor_loss_.item<double>();
  statistics["entropy"] = entropy_.item<double>();
  return statistics;
}

absl::StatusOr<std::string> Sac::EncodePolicy(const PolicyStamp& stamp) const {
  const PolicyMetadata metadata = SacPolicyMetadata(config_, reader_, stamp, updates_);
  if (!sizes_.encoder.has_images()) return troupe::EncodePolicy(metadata, actor_.parameters());
  // The convolutions are the critics', and the linear layer behind them is the actor's own.
  FlatParameters policy(PolicyParameters(metadata), torch::kFloat32);
  policy.CopyFrom(critics_.parameters(), ConvolutionParameters(sizes_.encoder));
  policy.CopyFrom(actor_.parameters(), actor_.parameters().specs());
  return troupe::EncodePolicy(metadata, policy);
}

absl::StatusOr<std::map<std::string, std::string>> Sac::Save() const {
  TensorFile model, optimizer;
  actor_.parameters().Save("actor.", model);
  critics_.parameters().Save("critic.", model);
  target_critics_.parameters().Save("critic_target.", model);
  model.Add("log_alpha", log_alpha_);
  actor_adam_.Save("actor.", optimizer);
  critic_adam_.Save("critic.", optimizer);
  alpha_adam_.Save("log_alpha.", optimizer);
  return EncodeState(model, std::move(optimizer), updates_, generator_);
}

absl::Status Sac::Load(const std::map<std::string, std::string>& files) {
  return Restore("SAC", [&] { return LoadFiles(files); });
}

absl::Status Sac::LoadFiles(const std::map<std::string, std::string>& files) {
  const absl::StatusOr<Safetensors> model = ParseFile(files, kModelFile);
  if (!model.ok()) return model.status();
  absl::Status status = actor_.parameters().Load("actor.", *model);
  status.Update(critics_.parameters().Load("critic.", *model));
  status.Update(target_critics_.parameters().Load("critic_target.", *model));
  const absl::StatusOr<Tensor> log_alpha =
      ReadTensor(*model, "log_alpha", log_alpha_.scalar_type(), {1});
  status.Update(log_alpha.status());
  if (!status.ok()) return InFile(kModelFile, status);
  log_alpha_.copy_(*log_alpha);

  const absl::StatusOr<Safetensors> optimizer = ParseFile(files, kOptimizerFile);
  if (!optimizer.ok()) return optimizer.status();
  status.Update(actor_adam_.Load("actor.", *optimizer));
  status.Update(critic_adam_.Load("critic.", *optimizer));
  status.Update(alpha_adam_.Load("log_alpha.", *optimizer));
  if (!status.ok()) return InFile(kOptimizerFile, status);
  const absl::StatusOr<int64_t> updates = ReadUpdates(*optimizer);
  if (!updates.ok()) return updates.status();
  updates_ = *updates;
  return LoadGenerator(files, generator_);
}

}  // namespace troupe
