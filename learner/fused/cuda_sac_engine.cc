#include "learner/fused/cuda_sac_engine.h"

#include <algorithm>
#include <array>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "learner/fused/cuda_memory.h"
#include "learner/fused/cuda_replica_store.h"
#include "learner/fused/packed_network.h"
#include "learner/fused/rows_program.h"
#include "learner/fused/sac_kernels.h"

namespace troupe {
namespace {

bool operator!=(const TransitionView& a, const TransitionView& b) {
  return a.rows != b.rows || a.transitions != b.transitions || a.first != b.first ||
         a.count != b.count || a.capacity != b.capacity || a.in_order != b.in_order ||
         a.noise != b.noise;
}

// The largest of which all clusters that the batch needs run at once: the more share the rows of a
// small batch, the sooner they are through.
absl::StatusOr<int> ChooseClusterSize(int padded_batch, int bytes, const cudaDeviceProp& device) {
  if (device.major < 9) return 1;
  for (const int size : {4, 2}) {
    int clusters = 0;
    const absl::Status status =
        CudaStatus(CountActiveClusters(bytes, size, &clusters), "counting clusters");
    if (!status.ok()) return status;
    if (padded_batch / kTileRows <= clusters) return size;
  }
  return 1;
}

// A sum over the rows of a large batch is shared by two.
int ChooseParts(int padded_batch) { return padded_batch >= 2048 ? 2 : 1; }

// A stream with the graphs that were captured from it, one for copies beside it, and events on
// them.
struct CudaQueue {
  cudaStream_t stream = nullptr, side = nullptr;
  cudaEvent_t turn_done[2] = {}, actor_ready = nullptr, actor_taken = nullptr;
  // One update without the actor's part; one with it; several of these.
  cudaGraphExec_t critics_only = nullptr, one = nullptr, several = nullptr;

  ~CudaQueue() {
    for (cudaGraphExec_t graph : {critics_only, one, several}) {
      if (graph != nullptr) cudaGraphExecDestroy(graph);
    }
    for (cudaEvent_t event : {turn_done[0], turn_done[1], actor_ready, actor_taken}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    for (cudaStream_t one : {stream, side}) {
      if (one != nullptr) cudaStreamDestroy(one);
    }
  }

  absl::Status Open() {
    absl::Status status;
    for (cudaStream_t* one : {&stream, &side}) {
      status.Update(
          CudaStatus(cudaStreamCreateWithFlags(one, cudaStreamNonBlocking), "making a stream"));
    }
    for (cudaEvent_t* event : {&turn_done[0], &turn_done[1], &actor_ready, &actor_taken}) {
      status.Update(
          CudaStatus(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "making an event"));
    }
    return status;
  }
};

class CudaSacEngine final : public SacEngine {
 public:
  CudaSacEngine(const SacModel& model, const CudaOptions& options)
      : model_(model), options_(options) {}
  ~CudaSacEngine() override {
    for (cudaStream_t stream : {queue_.stream, queue_.side}) {
      if (stream != nullptr) cudaStreamSynchronize(stream);
    }
    if (taken_actor_ != nullptr) cudaFreeHost(taken_actor_);
  }

  // Once, before everything else.
  absl::Status Open();

  const SacModel& model() const override { return model_; }
  absl::Status Update(const SacBatch& batch) override;
  absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) override;
  absl::Status UpdateFromReplica(int64_t count) override;
  int64_t updates() const override { return updates_; }
  bool TakeActor() override;
  absl::StatusOr<std::vector<float>> TakenActor() const override;
  absl::StatusOr<SacStatistics> Statistics() const override;
  absl::StatusOr<std::vector<float>> ActorParameters() const override;
  absl::StatusOr<SacState> Save() const override;
  absl::Status Load(const SacState& state) override;

 private:
  // Only if the kernels take turns always alike: each knows what the one before it writes.
  bool overlaps() const {
    return options_.overlap && device_major_ >= 9 && model_.actor_update_interval == 1;
  }
  void FillSizes();
  DeviceVector AllocateVector(int64_t size, int64_t transposed_size);
  void AllocateNetworks();
  void AllocateRows();
  absl::Status SetProgram(const BuiltProgram& built, RowsArgs& args);
  absl::Status MakePrograms(const cudaDeviceProp& device);
  void FillDescendArgs();
  static void AddJobs(const PackedNetwork& network, const DeviceVector& vector, float* target,
                      const float* x, int x_stride, float* const* h, float* const* d, int64_t row,
                      DescendArgs& args);
  absl::Status LaunchUpdate(bool with_actor);
  absl::Status Capture(int updates, bool with_actor, cudaGraphExec_t* graph);
  absl::Status SetView(const TransitionView& view);
  absl::Status RunUpdates(int64_t count);
  absl::Status Synchronize() const;

  absl::StatusOr<std::vector<float>> Download(const float* from, int64_t n) const;
  absl::Status DownloadVector(const PackedNetwork& network, int ensemble, const DeviceVector& from,
                              DescendedVector& to) const;
  absl::Status UploadVector(const PackedNetwork& network, int ensemble, const DescendedVector& from,
                            const DeviceVector& to);

  const SacModel model_;
  const CudaOptions options_;
  int device_major_ = 0;
  DeviceArena arena_;
  CudaQueue queue_;
  UploadRing uploads_;
  DeviceNetworks networks_;
  RowsArgs rows_ = {};  // what both kernels over rows have in common
  RowsArgs critic_rows_ = {}, actor_rows_ = {};
  DescendArgs descend_critics_ = {}, descend_actor_ = {};
  TransitionView* device_view_ = nullptr;
  TransitionView view_;         // what *device_view_ is by now
  float* log_alpha_ = nullptr;  // value, m, v
  DeviceStatistics* statistics_ = nullptr;
  // The batches of Update().
  float *batch_rows_ = nullptr, *batch_noise_ = nullptr;
  DeviceTransition* batch_transitions_ = nullptr;
  int64_t batch_rows_size_ = 0;  // floats
  std::unique_ptr<CudaReplicaStore> replica_;
  int64_t updates_ = 0;
  int turn_ = 0;  // calls of UpdateFromReplica()
  // The policy's parameters for TakeActor(), packed: a copy on the GPU, and one in pinned memory.
  float *actor_copy_ = nullptr, *taken_actor_ = nullptr;
  absl::Status taken_status_;
  std::vector<int32_t> actor_places_;
};

absl::Status CudaSacEngine::Open() {
  absl::Status status = CudaStatus(cudaSetDevice(options_.device),
                                   absl::StrCat("choosing CUDA device ", options_.device));
  if (!status.ok()) return status;
  cudaDeviceProp device;
  status = CudaStatus(cudaGetDeviceProperties(&device, options_.device), "reading the properties");
  if (!status.ok()) return status;
  device_major_ = device.major;
  FillSizes();
  AllocateNetworks();
  AllocateRows();
  if (!arena_.status().ok()) return arena_.status();
  status = MakePrograms(device);
  status.Update(queue_.Open());
  status.Update(uploads_.Open());
  status.Update(CudaStatus(cudaMallocHost(reinterpret_cast<void**>(&taken_actor_),
                                          networks_.actor_network.size * sizeof(float)),
                           "allocating pinned memory"));
  FillDescendArgs();
  status.Update(CudaStatus(cudaDeviceSynchronize(), "clearing memory"));
  if (!status.ok()) return status;
  status.Update(Capture(1, true, &queue_.one));
  if (model_.actor_update_interval > 1) {
    status.Update(Capture(1, false, &queue_.critics_only));
  } else {
    status.Update(Capture(options_.updates_per_graph, true, &queue_.several));
  }
  return status;
}

void CudaSacEngine::FillSizes() {
  const int observation = static_cast<int>(model_.observation_size);
  const int action = static_cast<int>(model_.action_size);
  networks_.actor_network = MakePackedNetwork(observation, model_.actor_hidden, 2 * action);
  networks_.critic_network = MakePackedNetwork(observation + action, model_.critic_hidden, 1);
  networks_.actor_unit = model_.actor_unit;
  networks_.critic_unit = model_.critic_unit;
  rows_.observation_size = observation;
  rows_.action_size = action;
  rows_.batch_size = static_cast<int>(model_.batch_size);
  rows_.padded_batch = RoundUp(rows_.batch_size, kTileRows);
  rows_.input_width = networks_.critic_network.layers[0].padded_k;
  rows_.head_width = RoundUp(networks_.actor_network.head().padded_n, kHeadPadding);
  rows_.critic_unit = model_.critic_unit;
  rows_.log_std_min = model_.log_std_min;
  rows_.log_std_max = model_.log_std_max;
  rows_.has_entropy = model_.has_entropy;
  rows_.backup_entropy = model_.backup_entropy;
  rows_.mean_critic = model_.actor_uses_mean_critic;
  rows_.automatic_temperature = model_.automatic_temperature;
  rows_.overlaps = overlaps();
}

DeviceVector CudaSacEngine::AllocateVector(int64_t size, int64_t transposed_size) {
  DeviceVector vector;
  vector.values = arena_.Allocate<float>(size);
  vector.m = arena_.Allocate<float>(size);
  vector.v = arena_.Allocate<float>(size);
  vector.transposed = arena_.Allocate<float>(transposed_size);
  return vector;
}

void CudaSacEngine::AllocateNetworks() {
  const PackedNetwork &actor = networks_.actor_network, &critic = networks_.critic_network;
  const int64_t batch = rows_.padded_batch;
  networks_.actor = AllocateVector(actor.size, actor.transposed_size);
  networks_.critics = AllocateVector(2 * critic.size, 2 * critic.transposed_size);
  networks_.target_critics = arena_.Allocate<float>(2 * critic.size);
  actor_copy_ = arena_.Allocate<float>(actor.size);
  actor_places_ = PackedPlaces(actor, 1);
  for (int l = 0; l < actor.num_layers; ++l) {
    const int64_t actor_width = RoundUp(actor.layers[l].padded_n, kHeadPadding);
    const int64_t critic_width = RoundUp(critic.layers[l].padded_n, kHeadPadding);
    networks_.actor_h[l] = arena_.Allocate<float>(batch * actor_width);
    networks_.actor_d[l] = arena_.Allocate<float>(batch * actor_width);
    networks_.critic_h[l] = arena_.Allocate<float>(2 * batch * critic_width);
    networks_.critic_d[l] = arena_.Allocate<float>(2 * batch * critic_width);
  }
}

void CudaSacEngine::AllocateRows() {
  const int num_hidden = networks_.critic_network.num_hidden();
  const int64_t batch = rows_.padded_batch, actions = batch * rows_.action_size;
  rows_.log_alpha = log_alpha_ = arena_.Allocate<float>(3);
  rows_.view = device_view_ = arena_.Allocate<TransitionView>(1);
  rows_.counters = arena_.Allocate<SacCounters>(1);
  statistics_ = arena_.Allocate<DeviceStatistics>(1);
  rows_.x = arena_.Allocate<float>(batch * rows_.input_width);
  rows_.last_critic_d = networks_.critic_d[num_hidden - 1];
  rows_.value_d = networks_.critic_d[num_hidden];
  rows_.head_d = networks_.actor_d[num_hidden];
  for (float** of_action : {&rows_.action, &rows_.spread, &rows_.is_free}) {
    *of_action = arena_.Allocate<float>(actions);
  }
  for (float** of_row : {&rows_.log_pi, &rows_.squared_error, &rows_.q_sum, &rows_.actor_loss}) {
    *of_row = arena_.Allocate<float>(batch);
  }
  batch_rows_size_ = 2 * model_.batch_size * (model_.observation_size + model_.action_size);
  batch_rows_ = arena_.Allocate<float>(batch_rows_size_);
  batch_noise_ = arena_.Allocate<float>(2 * model_.batch_size * model_.action_size);
  batch_transitions_ = arena_.Allocate<DeviceTransition>(model_.batch_size);
}

absl::Status CudaSacEngine::SetProgram(const BuiltProgram& built, RowsArgs& args) {
  args = rows_;
  args.layout = built.layout;
  args.num_steps = built.num_steps;
  args.num_jobs = built.num_jobs;
  RowsProgram* const program = arena_.Allocate<RowsProgram>(1);
  args.program = program;
  if (!arena_.status().ok()) return arena_.status();
  return CudaStatus(
      cudaMemcpy(program, &built.program, sizeof(built.program), cudaMemcpyHostToDevice),
      "copying to the GPU");
}

absl::Status CudaSacEngine::MakePrograms(const cudaDeviceProp& device) {
  BuiltProgram critics = CriticRowsProgram(networks_, rows_.action_size, rows_.padded_batch);
  BuiltProgram actor =
      ActorRowsProgram(networks_, rows_.observation_size, rows_.action_size, rows_.padded_batch);
  const auto bytes_of = [](const BuiltProgram& built) {
    return built.layout.size * static_cast<int>(sizeof(float));
  };
  const int bytes = std::max(bytes_of(critics), bytes_of(actor));
  if (static_cast<size_t>(bytes) > device.sharedMemPerBlockOptin) {
    return absl::UnimplementedError(absl::StrCat(
        "the fused engine needs ", bytes, " bytes of shared memory for these networks, ",
        device.name, " has ", device.sharedMemPerBlockOptin));
  }
  absl::Status status =
      CudaStatus(PrepareKernels(bytes_of(critics), bytes_of(actor)), "preparing the kernels");
  if (!status.ok()) return status;
  const absl::StatusOr<int> cluster_size =
      options_.cluster_size > 0 && device.major >= 9
          ? options_.cluster_size
          : ChooseClusterSize(rows_.padded_batch, bytes_of(critics), device);
  if (!cluster_size.ok()) return cluster_size.status();
  rows_.cluster_size = *cluster_size;
  ShareTiles(*cluster_size, critics);
  ShareTiles(*cluster_size, actor);
  const PackedNetwork& network = networks_.critic_network;
  // For CriticRows both targets, then both critics; for ActorRows the critics.
  for (int e = 0; e < 2; ++e) {
    const float* const values[2] = {networks_.target_critics + e * network.size,
                                    networks_.critics.values + e * network.size};
    for (int i = 0; i < 2; ++i) {
      rows_.value_heads[2 * i + e] = values[i] + network.head().weights;
      rows_.value_biases[2 * i + e] = values[i] + network.head().bias;
    }
  }
  status = SetProgram(critics, critic_rows_);
  status.Update(SetProgram(actor, actor_rows_));
  for (int e = 0; e < 2; ++e) {
    actor_rows_.value_heads[e] = rows_.value_heads[2 + e];
    actor_rows_.value_biases[e] = rows_.value_biases[2 + e];
  }
  return status;
}

void CudaSacEngine::AddJobs(const PackedNetwork& network, const DeviceVector& vector, float* target,
                            const float* x, int x_stride, float* const* h, float* const* d,
                            int64_t row, DescendArgs& args) {
  for (int l = 0; l < network.num_layers; ++l) {
    DescendJob& job = args.jobs[args.num_jobs++];
    job.layer = network.layers[l];
    job.x = l == 0 ? x : h[l - 1] + row * network.layers[l - 1].padded_n;
    job.x_stride = l == 0 ? x_stride : network.layers[l - 1].padded_n;
    job.dy_stride = RoundUp(job.layer.padded_n, kHeadPadding);
    job.dy = d[l] + row * job.dy_stride;
    job.vector = vector;
    job.target = target;
    job.first_tile = args.num_tiles;
    job.tiles_k = (job.layer.k + 31) / 32;
    args.num_tiles += job.tiles_k * ((job.layer.n + 31) / 32);
  }
}

void CudaSacEngine::FillDescendArgs() {
  const PackedNetwork& critic = networks_.critic_network;
  const int x_stride = rows_.input_width;
  for (int e = 0; e < 2; ++e) {
    DeviceVector vector = networks_.critics;
    for (float** of_network : {&vector.values, &vector.m, &vector.v}) {
      *of_network += e * critic.size;
    }
    vector.transposed += e * critic.transposed_size;
    AddJobs(critic, vector, networks_.target_critics + e * critic.size, rows_.x, x_stride,
            networks_.critic_h, networks_.critic_d, e * int64_t{rows_.padded_batch},
            descend_critics_);
  }
  AddJobs(networks_.actor_network, networks_.actor, nullptr, rows_.x, x_stride, networks_.actor_h,
          networks_.actor_d, 0, descend_actor_);
  descend_critics_.learning_rate = model_.critic_learning_rate;
  descend_critics_.tau = model_.tau;
  descend_critics_.steps = &rows_.counters->critic_steps;
  descend_actor_.learning_rate = model_.actor_learning_rate;
  descend_actor_.steps = &rows_.counters->actor_steps;
  const int parts = device_major_ < 9    ? 1
                    : options_.parts > 0 ? options_.parts
                                         : ChooseParts(rows_.padded_batch);
  for (DescendArgs* args : {&descend_critics_, &descend_actor_}) {
    args->row_tiles = rows_.padded_batch / kTileRows;
    args->parts = parts;
    args->tiles_of_part = (args->row_tiles + parts - 1) / parts;
    args->batch_size = rows_.batch_size;
    args->counters = rows_.counters;
    args->statistics = statistics_;
    args->squared_error = rows_.squared_error;
    args->q_sum = rows_.q_sum;
    args->log_pi = rows_.log_pi;
    args->actor_loss = rows_.actor_loss;
    args->log_alpha = log_alpha_;
    args->alpha_learning_rate = model_.alpha_learning_rate;
    args->target_entropy = model_.target_entropy;
    args->automatic_temperature = model_.automatic_temperature;
    args->overlaps = overlaps();
    args->has_entropy = model_.has_entropy;
  }
}

absl::Status CudaSacEngine::LaunchUpdate(bool with_actor) {
  const LaunchOptions options{options_.exact, overlaps()};
  absl::Status status =
      CudaStatus(LaunchCriticRows(critic_rows_, options, queue_.stream), "CriticRows");
  status.Update(
      CudaStatus(LaunchDescendCritics(descend_critics_, options, queue_.stream), "DescendCritics"));
  if (!with_actor || !status.ok()) return status;
  status.Update(CudaStatus(LaunchActorRows(actor_rows_, options, queue_.stream), "ActorRows"));
  status.Update(
      CudaStatus(LaunchDescendActor(descend_actor_, options, queue_.stream), "DescendActor"));
  return status;
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
    const absl::Status status = CudaStatus(cudaGraphLaunch(graph, queue_.stream), "an update");
    if (!status.ok()) return status;
    updates_ += done;
    count -= done;
  }
  return absl::OkStatus();
}

absl::Status CudaSacEngine::Update(const SacBatch& batch) {
  if (static_cast<int64_t>(batch.transitions.size()) != model_.batch_size ||
      static_cast<int64_t>(batch.rows.size()) > batch_rows_size_) {
    return absl::InvalidArgumentError(
        absl::StrCat(batch.transitions.size(), " transitions; the engine takes ", model_.batch_size,
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

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string CudaDeviceName(int device) {
  cudaDeviceProp properties;
  return cudaGetDeviceProperties(&properties, device) == cudaSuccess ? properties.name : "";
}

absl::StatusOr<std::unique_ptr<SacEngine>> MakeCudaSacEngine(const SacModel& model,
                                                             const CudaOptions& options) {
  auto engine = std::make_unique<CudaSacEngine>(model, options);
  if (absl::Status status = engine->Open(); !status.ok()) return status;
  return std::unique_ptr<SacEngine>(std::move(engine));
}

}  // namespace troupe
