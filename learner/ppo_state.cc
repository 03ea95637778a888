// The part of Ppo that writes and reads its state.
#include "common/policy_codec.h"
#include "learner/ppo.h"
#include "learner/state_files.h"

namespace troupe {

absl::StatusOr<std::string> Ppo::EncodePolicy(const PolicyStamp& stamp) const {
  PolicyMetadata metadata = policy_;
  metadata.run = stamp.run;
  metadata.version = stamp.version;
  metadata.env_steps = stamp.env_steps;
  metadata.updates = updates_;
  metadata.warmup = stamp.warmup;
  metadata.final_one = stamp.final_one;
  PolicyStatistics statistics;
  if (config_.normalize_observations() && policy_.observation_size > 0) {
    statistics.observation_mean = observations_.Mean();
    statistics.observation_std = observations_.Std();
  }
  if (config_.scale_rewards()) statistics.reward_std = returns_.Std();
  return troupe::EncodePolicy(metadata, actor_.parameters(), statistics);
}

absl::StatusOr<std::map<std::string, std::string>> Ppo::Save() const {
  TensorFile model, optimizer;
  actor_.parameters().Save("actor.", model);
  critic_.parameters().Save("critic.", model);
  observations_.Save("observations.", model);
  returns_.Save("returns.", model);
  actor_adam_.Save("actor.", optimizer);
  critic_adam_.Save("critic.", optimizer);
  optimizer.Add("kl_coefficient", torch::full({}, kl_coefficient_, torch::kFloat64));
  optimizer.Add("learning_rate", torch::full({}, learning_rate_, torch::kFloat64));
  return EncodeState(model, std::move(optimizer), updates_, shuffle_);
}

absl::Status Ppo::Load(const std::map<std::string, std::string>& files) {
  return Restore("PPO", [&] { return LoadFiles(files); });
}

absl::Status Ppo::LoadFiles(const std::map<std::string, std::string>& files) {
  const absl::StatusOr<Safetensors> model = ParseFile(files, kModelFile);
  if (!model.ok()) return model.status();
  absl::Status status = actor_.parameters().Load("actor.", *model);
  status.Update(critic_.parameters().Load("critic.", *model));
  status.Update(observations_.Load("observations.", *model));
  status.Update(returns_.Load("returns.", *model));
  if (!status.ok()) return InFile(kModelFile, status);

  const absl::StatusOr<Safetensors> optimizer = ParseFile(files, kOptimizerFile);
  if (!optimizer.ok()) return optimizer.status();
  status.Update(actor_adam_.Load("actor.", *optimizer));
  status.Update(critic_adam_.Load("critic.", *optimizer));
  const auto kl_coefficient = ReadTensor(*optimizer, "kl_coefficient", torch::kFloat64, {});
  status.Update(kl_coefficient.status());
  const auto learning_rate = ReadTensor(*optimizer, "learning_rate", torch::kFloat64, {});
  status.Update(learning_rate.status());
  if (!status.ok()) return InFile(kOptimizerFile, status);
  const absl::StatusOr<int64_t> updates = ReadUpdates(*optimizer);
  if (!updates.ok()) return updates.status();
  kl_coefficient_ = kl_coefficient->item<double>();
  SetLearningRate(learning_rate->item<double>());
  updates_ = *updates;
  return LoadGenerator(files, shuffle_);
}

}  // namespace troupe
