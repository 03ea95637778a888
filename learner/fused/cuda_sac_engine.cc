#include "learner/fused/cuda_sac_engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/fused/cuda_sac_engine_impl.h"

namespace troupe {
namespace {

bool operator!=(const TransitionView& a, const TransitionView& b) {
  return a.rows != b.rows || a.transitions != b.transitions || a.first != b.first ||
         a.count != b.count || a.capacity != b.capacity || a.in_order != b.in_order ||
         a.noise != b.noise;
}

}  // namespace

absl::Status CudaSacEngine::LaunchUpdate(bool with_actor) {
  const LaunchOptions options{options_.exact, overlaps()};
  absl::Status status =
      CudaStatus(LaunchCriticRows(critic_rows_, options, queue_.stream), "CriticRows");
  if (status.ok()) status = Descend(descend_critics_, /*of_critics=*/true);
  if (!with_actor || !status.ok()) return status;
  status = CudaStatus(LaunchActorRows(actor_rows_, options, queue_.stream), "ActorRows");
  return status.ok() ? Descend(descend_actor_, /*of_critics=*/false) : status;
}

absl::Status CudaSacEngine::Descend(const DescendArgs& args, bool of_critics) {
  const LaunchOptions options{options_.exact, overlaps()};
  const auto launch = [&](DescendPart part) {
    return of_critics
               ? CudaStatus(LaunchDescendCritics(args, part, options, queue_.stream),
                            "DescendCritics")
               : CudaStatus(LaunchDescendActor(args, part, options, queue_.stream), "DescendActor");
  };
  if (ranks_ == nullptr) return launch(DescendPart::kBoth);
  absl::Status status = launch(DescendPart::kGradient);
  if (!status.ok()) return status;
  status =
      of_critics
          ? ranks_->SumOnDevice(networks_.critics.gradient, critics_gradient_size_, queue_.stream)
          : ranks_->SumOnDevice(networks_.actor.gradient, actor_gradient_size_, queue_.stream);
  return status.ok() ? launch(DescendPart::kStep) : status;
}

// The first sum makes what later ones need, which cannot be done while a graph is captured.
absl::Status CudaSacEngine::MeetRanks() {
  if (ranks_ == nullptr) return absl::OkStatus();
  absl::Status status =
      ranks_->SumOnDevice(networks_.critics.gradient, critics_gradient_size_, queue_.stream);
  if (absl::IsUnimplemented(status)) {
    return absl::UnimplementedError(absl::StrCat(
        "on CUDA the fused engine shares its updates where the ranks sum on the GPU, but ",
        status.message()));
  }
  status.Update(Synchronize());
  return status;
}

absl::Status CudaSacEngine::CaptureAll() {
  absl::Status status = Capture(1, true, &queue_.one);
  if (model_.actor_update_interval > 1) {
    status.Update(Capture(1, false, &queue_.critics_only));
  } else {
    status.Update(Capture(options_.updates_per_graph, true, &queue_.several));
  }
  if (status.ok() || ranks_ == nullptr) return status;
  // Sums over ranks that cannot be captured: updates are launched kernel by kernel.
  cudaGetLastError();
  queue_.DestroyGraphs();
  return absl::OkStatus();
}

absl::Status CudaSacEngine::Capture(int updates, bool with_actor, cudaGraphExec_t* graph) {
  absl::Status status =
      CudaStatus(cudaStreamBeginCapture(queue_.stream, cudaStreamCaptureModeThreadLocal),
                 "beginning to capture the update");
  if (!status.ok()) return status;
  for (int i = 0; i < updates; ++i) status.Update(LaunchUpdate(with_actor));
  cudaGraph_t captured = nullptr;
  status.Update(
      CudaStatus(cudaStreamEndCapture(queue_.stream, &captured), "ending to capture the update"));
  if (!status.ok()) return status;
  status = CudaStatus(cudaGraphInstantiate(graph, captured, 0), "making a graph of the update");
  cudaGraphDestroy(captured);
  return status;
}

absl::Status CudaSacEngine::SetView(const TransitionView& view) {
  if (!(view_ != view)) return absl::OkStatus();
  view_ = view;
  return CudaStatus(LaunchSetView(device_view_, view, queue_.stream), "setting the view");
}

absl::Status CudaSacEngine::RunUpdates(int64_t count) {
  while (count > 0) {
    int done = 1;
    cudaGraphExec_t graph = queue_.one;
    if (queue_.several != nullptr && count >= options_.updates_per_graph) {
      done = options_.updates_per_graph;
      graph = queue_.several;
    } else if ((updates_ + 1) % model_.actor_update_interval != 0) {
      graph = queue_.critics_only;
    }
    const bool with_actor = (updates_ + 1) % model_.actor_update_interval == 0;
    const absl::Status status =
        graph == nullptr ? LaunchUpdate(with_actor)
                         : CudaStatus(cudaGraphLaunch(graph, queue_.stream), "an update");
    if (!status.ok()) return status;
    updates_ += done;
    count -= done;
  }
  return absl::OkStatus();
}

absl::Status CudaSacEngine::Update(const SacBatch& batch) {
  if (!batch.weights.empty()) return absl::UnimplementedError("weights on CUDA");
  if (static_cast<int64_t>(batch.transitions.size()) != rows_.batch_size ||
      static_cast<int64_t>(batch.rows.size()) > batch_rows_size_) {
    return absl::InvalidArgumentError(
        absl::StrCat(batch.transitions.size(), " transitions; the engine takes ", rows_.batch_size,
                     " from at most twice as many rows"));
  }
  const auto upload = [&](const auto& from, auto* to) {
    return uploads_.Upload(from.data(), static_cast<int64_t>(from.size() * sizeof(from[0])), to,
                           queue_.stream);
  };
  absl::Status status = upload(batch.rows, batch_rows_);
  status.Update(upload(batch.transitions, batch_transitions_));
  if (!batch.noise.empty()) status.Update(upload(batch.noise, batch_noise_));
  TransitionView view;
  view.rows = batch_rows_;
  view.transitions = batch_transitions_;
  view.in_order = 1;
  view.noise = batch.noise.empty() ? nullptr : batch_noise_;
  status.Update(SetView(view));
  return status.ok() ? RunUpdates(1) : status;
}

absl::StatusOr<ReplicaStore*> CudaSacEngine::MakeReplica(const ReplicaShape& shape) {
  if (replica_ == nullptr) {
    auto replica = CudaReplicaStore::Create(shape, queue_.stream, uploads_);
    if (!replica.ok()) return replica.status();
    replica_ = *std::move(replica);
  }
  return replica_.get();
}

absl::Status CudaSacEngine::UpdateFromReplica(int64_t count) {
  if (replica_ == nullptr || replica_->view().count == 0) {
    return absl::FailedPreconditionError("the replica holds no transitions");
  }
  absl::Status status = SetView(replica_->view());
  if (status.ok()) status = RunUpdates(count);
  if (!status.ok()) return status;
  status =
      CudaStatus(cudaEventRecord(queue_.turn_done[turn_ % 2], queue_.stream), "recording an event");
  ++turn_;
  status.Update(CudaStatus(cudaEventSynchronize(queue_.turn_done[turn_ % 2]),
                           "waiting for the updates before"));
  return status;
}

// The copy on the GPU holds up the updates for a microsecond, the way to the host not at all.
bool CudaSacEngine::TakeActor() {
  const size_t bytes = networks_.actor_network.size * sizeof(float);
  const auto update = [&](cudaError_t error) {
    taken_status_.Update(CudaStatus(error, "taking the policy's parameters"));
  };
  taken_status_ = absl::OkStatus();
  update(cudaStreamWaitEvent(queue_.stream, queue_.actor_taken));  // of the copy before
  update(cudaMemcpyAsync(actor_copy_, networks_.actor.values, bytes, cudaMemcpyDeviceToDevice,
                         queue_.stream));
  update(cudaEventRecord(queue_.actor_ready, queue_.stream));
  update(cudaStreamWaitEvent(queue_.side, queue_.actor_ready));
  update(cudaMemcpyAsync(taken_actor_, actor_copy_, bytes, cudaMemcpyDeviceToHost, queue_.side));
  update(cudaEventRecord(queue_.actor_taken, queue_.side));
  return true;
}

absl::StatusOr<std::vector<float>> CudaSacEngine::TakenActor() const {
  absl::Status status = taken_status_;
  status.Update(
      CudaStatus(cudaEventSynchronize(queue_.actor_taken), "waiting for the policy's parameters"));
  if (!status.ok()) return status;
  std::vector<float> flat(actor_places_.size());
  for (size_t i = 0; i < flat.size(); ++i) flat[i] = taken_actor_[actor_places_[i]];
  return flat;
}

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string CudaDeviceName(int device) {
  cudaDeviceProp properties;
  return cudaGetDeviceProperties(&properties, device) == cudaSuccess ? properties.name : "";
}

absl::StatusOr<std::unique_ptr<SacEngine>> MakeCudaSacEngine(const SacModel& model,
                                                             const CudaOptions& options,
                                                             RankGroup* ranks) {
  if (absl::Status status = CheckTwinCritics(model); !status.ok()) return status;
  auto engine = std::make_unique<CudaSacEngine>(model, options, ranks);
  if (absl::Status status = engine->Open(); !status.ok()) return status;
  return std::unique_ptr<SacEngine>(std::move(engine));
}

}  // namespace troupe
