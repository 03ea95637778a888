#include "learner/fused_sac.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/mlp.h"
#include "common/policy_codec.h"
#include "common/recurrence.h"
#include "common/tensor_file.h"
#include "learner/sac_policy.h"
#include "learner/state_files.h"

namespace troupe {

using torch::Tensor;

namespace {

// What no fused engine computes of it; empty: nothing.
std::string Uncovered(const proto::Sac& config) {
  if (config.critic_kind() != proto::Q_FUNCTION) return "critic_kind";
  if (config.actor_gradient() != proto::REPARAMETERIZED) return "actor_gradient";
  if (HasMemory(config.recurrence())) return "recurrence";
  if (config.actor().dropout() > 0 || config.critic().dropout() > 0) return "dropout";
  return "";
}

std::vector<int64_t> HiddenSizes(const proto::Mlp& network) {
  const proto::Mlp full = WithHiddenSizes(network);
  return {full.hidden_sizes().begin(), full.hidden_sizes().end()};
}

HiddenUnit UnitOf(const proto::Mlp& network) {
  if (network.activation() == proto::TANH) return HiddenUnit::kTanh;
  return network.activation() == proto::ELU ? HiddenUnit::kElu : HiddenUnit::kRelu;
}

SacModel ModelOf(const proto::Sac& config, int ranks, const TransitionReader& reader) {
  SacModel model;
  model.observation_size = reader.observation_size();
  model.action_size = reader.action_size();
  model.actor_hidden = HiddenSizes(config.actor());
  model.critic_hidden = HiddenSizes(config.critic());
  model.actor_unit = UnitOf(config.actor());
  model.critic_unit = UnitOf(config.critic());
  model.actor_layer_norm = config.actor().layer_norm();
  model.critic_layer_norm = config.critic().layer_norm();
  model.num_critics = config.num_critics();
  model.target_subset = std::min(config.min_subset(), config.num_critics());
  model.batch_size = ranks * config.batch_size();
  model.tau = static_cast<float>(config.tau());
  model.actor_learning_rate = static_cast<float>(config.actor_learning_rate());
  model.critic_learning_rate = static_cast<float>(config.critic_learning_rate());
  model.alpha_learning_rate = static_cast<float>(config.alpha_learning_rate());
  model.has_entropy = config.entropy() != proto::NO_ENTROPY;
  model.automatic_temperature = config.entropy() == proto::AUTOMATIC_TEMPERATURE;
  model.backup_entropy = config.backup_entropy();
  model.actor_uses_mean_critic = config.actor_uses_mean_critic();
  model.target_entropy =
      static_cast<float>(-config.target_entropy_scale() * static_cast<double>(model.action_size));
  model.actor_update_interval = config.actor_update_interval();
  model.log_std_min = static_cast<float>(config.log_std_min());
  model.log_std_max = static_cast<float>(config.log_std_max());
  return model;
}

FlatParameters ActorParameters(const SacModel& model, const proto::Sac& config) {
  return {MlpParameters({.inputs = model.observation_size,
                         .outputs = 2 * model.action_size,
                         .ensemble = 0,
                         .spec = WithHiddenSizes(config.actor())}),
          torch::kFloat32};
}

FlatParameters CriticParameters(const SacModel& model, const proto::Sac& config) {
  return {MlpParameters({.inputs = model.observation_size + model.action_size,
                         .outputs = 1,
                         .ensemble = model.num_critics,
                         .spec = WithHiddenSizes(config.critic())}),
          torch::kFloat32};
}

std::vector<float> ToVector(const Tensor& values) {
  const float* const data = values.data_ptr<float>();
  return {data, data + values.numel()};
}

Tensor ToTensor(const std::vector<float>& values) {
  return torch::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())},
                          torch::kFloat32);
}

DescendedVector AtTheStart(const Tensor& values) {
  DescendedVector vector;
  vector.values = ToVector(values);
  vector.m.assign(vector.values.size(), 0);
  vector.v.assign(vector.values.size(), 0);
  return vector;
}

// The optimizer's tensors, by Adam's names.
void SaveMoments(const std::string& prefix, const DescendedVector& vector, TensorFile& file) {
  file.Add(prefix + "exp_avg", ToTensor(vector.m));
  file.Add(prefix + "exp_avg_sq", ToTensor(vector.v));
  file.Add(prefix + "step", torch::full({}, vector.steps, torch::kInt64));
}

absl::Status LoadMoments(const std::string& prefix, const Safetensors& file,
                         DescendedVector& vector) {
  const std::vector<int64_t> shape = {static_cast<int64_t>(vector.values.size())};
  const auto m = ReadTensor(file, prefix + "exp_avg", torch::kFloat32, shape);
  if (!m.ok()) return m.status();
  const auto v = ReadTensor(file, prefix + "exp_avg_sq", torch::kFloat32, shape);
  if (!v.ok()) return v.status();
  const auto step = ReadTensor(file, prefix + "step", torch::kInt64, {});
  if (!step.ok()) return step.status();
  vector.m = ToVector(*m);
  vector.v = ToVector(*v);
  vector.steps = step->item<int64_t>();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FusedSac>> FusedSac::Create(const Options& options,
                                                           const Layout& layout,
                                                           const EngineMaker& make_engine) {
  if (const std::string what = Uncovered(options.config); !what.empty()) {
    return absl::UnimplementedError(absl::StrCat("fused engines do not compute ", what));
  }
  absl::StatusOr<TransitionReader> reader =
      TransitionReader::Create(layout, {.n_step = options.config.n_step(),
                                        .gamma = options.config.gamma(),
                                        .has_encoder = options.config.has_encoder()});
  if (!reader.ok()) return reader.status();
  if (reader->image().num_elements > 0) {
    return absl::UnimplementedError("fused engines do not compute images");
  }
  auto engine = make_engine(ModelOf(options.config, options.ranks, *reader));
  if (!engine.ok()) return engine.status();
  auto sac = absl::WrapUnique(
      new FusedSac(options, *std::move(reader), layout.stride_bytes(), *std::move(engine)));
  sac->actor_.Initialize(3 * options.seed);
  sac->critics_.Initialize(3 * options.seed + 1);
  if (absl::Status status = sac->Initialize(); !status.ok()) return status;
  return sac;
}

FusedSac::FusedSac(const Options& options, TransitionReader reader, int64_t stride_bytes,
                   std::unique_ptr<SacEngine> engine)
    : config_(options.config),
      prioritized_(options.prioritized),
      draw_seed_(3 * options.seed + 2),
      reader_(std::move(reader)),
      stride_bytes_(stride_bytes),
      engine_(std::move(engine)),
      actor_(ActorParameters(engine_->model(), config_)),
      critics_(CriticParameters(engine_->model(), config_)),
      target_critics_(CriticParameters(engine_->model(), config_)) {}

absl::Status FusedSac::Initialize() {
  SacState state;
  state.actor = AtTheStart(actor_.values());
  state.critics = AtTheStart(critics_.values());
  state.target_critics = state.critics.values;
  state.log_alpha = {
      .values = {static_cast<float>(std::log(config_.initial_alpha()))}, .m = {0}, .v = {0}};
  state.seed = draw_seed_;
  return engine_->Load(state);
}

absl::Status FusedSac::Update(const WindowBatch& batch, int64_t env_steps) {
  if (batch.num_windows != config_.batch_size() || batch.window_length != config_.n_step() + 1 ||
      batch.stride_bytes != stride_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat(batch.num_windows, " windows of ", batch.window_length, " rows of ",
                     batch.stride_bytes, " bytes; SAC wants ", config_.batch_size(), " windows of ",
                     config_.n_step() + 1, " rows of ", stride_bytes_));
  }
  try {
    const Transitions b = reader_.Read(batch.data(), batch.num_windows);
    // (s, a) and (s', nothing) of each transition.
    const Tensor rows = torch::stack(
        {torch::cat({b.s, b.a}, 1), torch::cat({b.s_next, torch::zeros_like(b.a)}, 1)}, 1);
    const Tensor reward = b.r.contiguous();
    const Tensor discount = (b.gamma * (1 - b.d)).contiguous();
    transitions_.resize(batch.num_windows);
    for (uint32_t i = 0; i < transitions_.size(); ++i) {
      transitions_[i] = {2 * i, 2 * i + 1, reward.data_ptr<float>()[i],
                         discount.data_ptr<float>()[i]};
    }
    std::vector<float> weights;
    if (prioritized_) weights = prioritized_->Weights(batch, env_steps);
    return engine_->Update({.rows = absl::MakeConstSpan(rows.data_ptr<float>(), rows.numel()),
                            .transitions = transitions_,
                            .weights = weights,
                            .noise = {}});
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("update ", updates() + 1, ": ", e.what()));
  }
}

std::vector<float> FusedSac::Priorities() const {
  if (!prioritized_ || updates() == 0) return {};
  return Prioritized::Priorities(engine_->AbsoluteErrors());
}

std::map<std::string, double> FusedSac::Statistics() const {
  if (updates() == 0) return {};
  const absl::StatusOr<SacStatistics> now = engine_->Statistics();
  // An engine that fails says so at its next update; until then something that is not finite.
  if (!now.ok()) return {{"q_loss", std::nan("")}};
  std::map<std::string, double> statistics = {
      {"q_loss", now->q_loss}, {"q_mean", now->q_mean}, {"alpha", now->alpha}};
  if (updates() < config_.actor_update_interval()) return statistics;
  statistics["actor_loss"] = now->actor_loss;
  statistics["entropy"] = now->entropy;
  return statistics;
}

bool FusedSac::TakePolicy() {
  if (!engine_->TakeActor()) return false;
  taken_updates_ = updates();
  return true;
}

absl::StatusOr<std::string> FusedSac::EncodePolicy(const PolicyStamp& stamp) const {
  const int64_t taken = std::exchange(taken_updates_, -1);
  const absl::StatusOr<std::vector<float>> parameters =
      taken >= 0 ? engine_->TakenActor() : engine_->ActorParameters();
  if (!parameters.ok()) return parameters.status();
  std::copy(parameters->begin(), parameters->end(), actor_.values().data_ptr<float>());
  return troupe::EncodePolicy(
      SacPolicyMetadata(config_, reader_, stamp, taken >= 0 ? taken : updates()), actor_);
}

absl::StatusOr<std::map<std::string, std::string>> FusedSac::Save() const {
  const absl::StatusOr<SacState> state = engine_->Save();
  if (!state.ok()) return state.status();
  actor_.values().copy_(ToTensor(state->actor.values));
  critics_.values().copy_(ToTensor(state->critics.values));
  target_critics_.values().copy_(ToTensor(state->target_critics));
  TensorFile model, optimizer;
  actor_.Save("actor.", model);
  critics_.Save("critic.", model);
  target_critics_.Save("critic_target.", model);
  model.Add("log_alpha", ToTensor(state->log_alpha.values));
  SaveMoments("actor.", state->actor, optimizer);
  SaveMoments("critic.", state->critics, optimizer);
  SaveMoments("log_alpha.", state->log_alpha, optimizer);
  // Draws follow from the seed and the number of the update; the generator is for Sac.
  return EncodeState(model, std::move(optimizer), state->updates,
                     MakeGenerator(torch::kCPU, draw_seed_ + state->updates));
}

absl::Status FusedSac::Load(const std::map<std::string, std::string>& files) {
  return Restore("SAC", [&] { return LoadFiles(files); });
}

absl::Status FusedSac::LoadFiles(const std::map<std::string, std::string>& files) {
  const absl::StatusOr<Safetensors> model = ParseFile(files, kModelFile);
  if (!model.ok()) return model.status();
  absl::Status status = actor_.Load("actor.", *model);
  status.Update(critics_.Load("critic.", *model));
  status.Update(target_critics_.Load("critic_target.", *model));
  const absl::StatusOr<Tensor> log_alpha = ReadTensor(*model, "log_alpha", torch::kFloat32, {1});
  status.Update(log_alpha.status());
  if (!status.ok()) return InFile(kModelFile, status);
  SacState state;
  state.actor.values = ToVector(actor_.values());
  state.critics.values = ToVector(critics_.values());
  state.target_critics = ToVector(target_critics_.values());
  state.log_alpha.values = ToVector(*log_alpha);
  state.seed = draw_seed_;

  const absl::StatusOr<Safetensors> optimizer = ParseFile(files, kOptimizerFile);
  if (!optimizer.ok()) return optimizer.status();
  status.Update(LoadMoments("actor.", *optimizer, state.actor));
  status.Update(LoadMoments("critic.", *optimizer, state.critics));
  status.Update(LoadMoments("log_alpha.", *optimizer, state.log_alpha));
  if (!status.ok()) return InFile(kOptimizerFile, status);
  const absl::StatusOr<int64_t> updates = ReadUpdates(*optimizer);
  if (!updates.ok()) return updates.status();
  state.updates = *updates;
  return engine_->Load(state);
}

}  // namespace troupe
