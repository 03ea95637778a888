#include <algorithm>
#include <utility>

#include "learner/fused/cuda_sac_engine_impl.h"

namespace troupe {

absl::Status CudaSacEngine::Synchronize() const {
  return CudaStatus(cudaStreamSynchronize(queue_.stream), "waiting for the updates");
}

absl::StatusOr<std::vector<float>> CudaSacEngine::Download(const float* from, int64_t n) const {
  std::vector<float> values(n);
  absl::Status status = Synchronize();
  status.Update(
      CudaStatus(cudaMemcpy(values.data(), from, n * sizeof(float), cudaMemcpyDeviceToHost),
                 "copying from the GPU"));
  if (!status.ok()) return status;
  return values;
}

absl::StatusOr<SacStatistics> CudaSacEngine::Statistics() const {
  const auto values = Download(&statistics_->q_loss, sizeof(DeviceStatistics) / sizeof(float));
  if (!values.ok()) return values.status();
  const std::vector<float>& v = *values;
  return SacStatistics{
      .q_loss = v[0], .q_mean = v[1], .alpha = v[2], .actor_loss = v[3], .entropy = v[4]};
}

absl::StatusOr<std::vector<float>> CudaSacEngine::ActorParameters() const {
  const auto packed = Download(networks_.actor.values, networks_.actor_network.size);
  if (!packed.ok()) return packed.status();
  std::vector<float> flat(FlatSize(networks_.actor_network, 1));
  Unpack(networks_.actor_network, 1, packed->data(), flat.data());
  return flat;
}

absl::Status CudaSacEngine::DownloadVector(const PackedNetwork& network, int ensemble,
                                           const DeviceVector& from, DescendedVector& to) const {
  const std::pair<const float*, std::vector<float>*> parts[] = {
      {from.values, &to.values}, {from.m, &to.m}, {from.v, &to.v}};
  for (const auto& [device, host] : parts) {
    if (device == nullptr) continue;
    const auto packed = Download(device, ensemble * int64_t{network.size});
    if (!packed.ok()) return packed.status();
    host->resize(FlatSize(network, ensemble));
    Unpack(network, ensemble, packed->data(), host->data());
  }
  return absl::OkStatus();
}

absl::StatusOr<SacState> CudaSacEngine::Save() const {
  SacState state;
  absl::Status status = DownloadVector(networks_.actor_network, 1, networks_.actor, state.actor);
  status.Update(DownloadVector(networks_.critic_network, 2, networks_.critics, state.critics));
  DescendedVector targets;
  status.Update(
      DownloadVector(networks_.critic_network, 2, {.values = networks_.target_critics}, targets));
  const auto alpha = Download(log_alpha_, 3);
  status.Update(alpha.status());
  SacCounters counters;
  status.Update(
      CudaStatus(cudaMemcpy(&counters, rows_.counters, sizeof(counters), cudaMemcpyDeviceToHost),
                 "copying from the GPU"));
  if (!status.ok()) return status;
  state.target_critics = std::move(targets.values);
  state.log_alpha = {.values = {(*alpha)[0]},
                     .m = {(*alpha)[1]},
                     .v = {(*alpha)[2]},
                     .steps = counters.alpha_steps};
  state.actor.steps = counters.actor_steps;
  state.critics.steps = counters.critic_steps;
  state.updates = updates_;
  state.seed = counters.seed;
  return state;
}

absl::Status CudaSacEngine::UploadVector(const PackedNetwork& network, int ensemble,
                                         const DescendedVector& from, const DeviceVector& to) {
  const std::pair<const std::vector<float>&, float*> parts[] = {
      {from.values, to.values}, {from.m, to.m}, {from.v, to.v}};
  std::vector<float> packed(ensemble * int64_t{network.size});
  for (const auto& [host, device] : parts) {
    if (device == nullptr) continue;
    std::fill(packed.begin(), packed.end(), 0.0f);
    Pack(network, ensemble, host.data(), packed.data());
    const absl::Status status = CudaStatus(
        cudaMemcpy(device, packed.data(), packed.size() * sizeof(float), cudaMemcpyHostToDevice),
        "copying to the GPU");
    if (!status.ok()) return status;
    if (to.transposed == nullptr || device != to.values) continue;
    std::vector<float> transposed(ensemble * int64_t{network.transposed_size});
    Transpose(network, ensemble, packed.data(), transposed.data());
    const absl::Status copied =
        CudaStatus(cudaMemcpy(to.transposed, transposed.data(), transposed.size() * sizeof(float),
                              cudaMemcpyHostToDevice),
                   "copying to the GPU");
    if (!copied.ok()) return copied;
  }
  return absl::OkStatus();
}

absl::Status CudaSacEngine::Load(const SacState& state) {
  absl::Status status = Synchronize();
  status.Update(UploadVector(networks_.actor_network, 1, state.actor, networks_.actor));
  status.Update(UploadVector(networks_.critic_network, 2, state.critics, networks_.critics));
  const DescendedVector targets{.values = state.target_critics, .m = {}, .v = {}, .steps = 0};
  status.Update(
      UploadVector(networks_.critic_network, 2, targets, {.values = networks_.target_critics}));
  const float alpha[3] = {state.log_alpha.values[0], state.log_alpha.m[0], state.log_alpha.v[0]};
  const SacCounters counters{.seed = state.seed,
                             .updates = static_cast<uint64_t>(state.updates),
                             .critic_steps = state.critics.steps,
                             .actor_steps = state.actor.steps,
                             .alpha_steps = state.log_alpha.steps};
  status.Update(CudaStatus(cudaMemcpy(log_alpha_, alpha, sizeof(alpha), cudaMemcpyHostToDevice),
                           "copying to the GPU"));
  status.Update(
      CudaStatus(cudaMemcpy(rows_.counters, &counters, sizeof(counters), cudaMemcpyHostToDevice),
                 "copying to the GPU"));
  updates_ = state.updates;
  return status;
}

}  // namespace troupe
