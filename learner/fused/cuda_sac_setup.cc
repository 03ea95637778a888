#include <algorithm>

#include "absl/strings/str_cat.h"
#include "learner/fused/cuda_sac_engine_impl.h"

namespace troupe {
namespace {

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

}  // namespace

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
  status = MeetRanks();
  return status.ok() ? CaptureAll() : status;
}

void CudaSacEngine::FillSizes() {
  const int observation = static_cast<int>(model_.observation_size);
  const int action = static_cast<int>(model_.action_size);
  networks_.actor_network =
      MakePackedNetwork(observation, model_.actor_hidden, 2 * action, model_.actor_layer_norm);
  networks_.critic_network =
      MakePackedNetwork(observation + action, model_.critic_hidden, 1, model_.critic_layer_norm);
  networks_.actor_unit = model_.actor_unit;
  networks_.critic_unit = model_.critic_unit;
  rows_.observation_size = observation;
  rows_.action_size = action;
  rows_.whole_batch = static_cast<int>(model_.batch_size);
  rows_.batch_size = rows_.whole_batch / (ranks_ == nullptr ? 1 : ranks_->size());
  rows_.first_of_batch = ranks_ == nullptr ? 0 : ranks_->rank() * rows_.batch_size;
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
  if (ranks_ != nullptr) {
    critics_gradient_size_ = 2 * critic.size + 2;
    actor_gradient_size_ = actor.size + 2;
    networks_.critics.gradient = arena_.Allocate<float>(critics_gradient_size_);
    networks_.actor.gradient = arena_.Allocate<float>(actor_gradient_size_);
  }
  actor_copy_ = arena_.Allocate<float>(actor.size);
  actor_places_ = PackedPlaces(actor, 1);
  for (int l = 0; l < actor.num_layers; ++l) {
    const int64_t actor_width = RoundUp(actor.layers[l].padded_n, kHeadPadding);
    const int64_t critic_width = RoundUp(critic.layers[l].padded_n, kHeadPadding);
    networks_.actor_h[l] = arena_.Allocate<float>(batch * actor_width);
    networks_.actor_d[l] = arena_.Allocate<float>(batch * actor_width);
    networks_.critic_h[l] = arena_.Allocate<float>(2 * batch * critic_width);
    networks_.critic_d[l] = arena_.Allocate<float>(2 * batch * critic_width);
    networks_.actor_norm[l] = AllocateNorm(actor.layers[l], batch);
    networks_.critic_norm[l] = AllocateNorm(critic.layers[l], 2 * batch);
  }
}

NormRows CudaSacEngine::AllocateNorm(const PackedLayer& layer, int64_t rows) {
  if (!layer.has_norm()) return {};
  return {.normalized = arena_.Allocate<float>(rows * layer.padded_n),
          .scale = arena_.Allocate<float>(rows),
          .sums = arena_.Allocate<float>(rows / kTileRows * 2 * layer.padded_n)};
}

void CudaSacEngine::AllocateRows() {
  const int num_hidden = networks_.critic_network.num_hidden();
  const int64_t batch = rows_.padded_batch, actions = batch * rows_.action_size;
  rows_.log_alpha = log_alpha_ = arena_.Allocate<float>(3);
  rows_.view = device_view_ = arena_.Allocate<TransitionView>(1);
  rows_.counters = arena_.Allocate<SacCounters>(1);
  statistics_ = arena_.Allocate<DeviceStatistics>(1);
  rows_.x = arena_.Allocate<float>(batch * rows_.input_width);
  rows_.last_critic_d = model_.critic_layer_norm ? nullptr : networks_.critic_d[num_hidden - 1];
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
  args.num_norms = built.num_norms;
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
  SetValueHeads();
  status = SetProgram(critics, critic_rows_);
  status.Update(SetProgram(actor, actor_rows_));
  for (int e = 0; e < 2; ++e) {
    actor_rows_.value_heads[e] = rows_.value_heads[2 + e];
    actor_rows_.value_biases[e] = rows_.value_biases[2 + e];
  }
  return status;
}

// For CriticRows both targets, then both critics; for ActorRows the critics.
void CudaSacEngine::SetValueHeads() {
  const PackedNetwork& network = networks_.critic_network;
  for (int e = 0; e < 2; ++e) {
    const float* const values[2] = {networks_.target_critics + e * network.size,
                                    networks_.critics.values + e * network.size};
    for (int i = 0; i < 2; ++i) {
      rows_.value_heads[2 * i + e] = values[i] + network.head().weights;
      rows_.value_biases[2 * i + e] = values[i] + network.head().bias;
    }
  }
}

void CudaSacEngine::AddJobs(const PackedNetwork& network, const DeviceVector& vector, float* target,
                            const float* x, int x_stride, float* const* h, float* const* d,
                            const NormRows* norms, int64_t row, DescendArgs& args) {
  for (int l = 0; l < network.num_layers; ++l) {
    DescendJob& job = args.jobs[args.num_jobs++];
    job.layer = network.layers[l];
    job.x = l == 0 ? x : h[l - 1] + row * network.layers[l - 1].padded_n;
    job.x_stride = l == 0 ? x_stride : network.layers[l - 1].padded_n;
    job.dy_stride = RoundUp(job.layer.padded_n, kHeadPadding);
    job.dy = d[l] + row * job.dy_stride;
    if (job.layer.has_norm()) {
      job.norm_sums = norms[l].sums + row / kTileRows * 2 * job.layer.padded_n;
    }
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
    if (vector.gradient != nullptr) vector.gradient += e * critic.size;
    for (float** of_network : {&vector.values, &vector.m, &vector.v}) {
      *of_network += e * critic.size;
    }
    vector.transposed += e * critic.transposed_size;
    AddJobs(critic, vector, networks_.target_critics + e * critic.size, rows_.x, x_stride,
            networks_.critic_h, networks_.critic_d, networks_.critic_norm,
            e * int64_t{rows_.padded_batch}, descend_critics_);
  }
  AddJobs(networks_.actor_network, networks_.actor, nullptr, rows_.x, x_stride, networks_.actor_h,
          networks_.actor_d, networks_.actor_norm, 0, descend_actor_);
  descend_critics_.learning_rate = model_.critic_learning_rate;
  descend_critics_.tau = model_.tau;
  descend_critics_.steps = &rows_.counters->critic_steps;
  if (ranks_ != nullptr) {
    descend_critics_.sums = networks_.critics.gradient + critics_gradient_size_ - 2;
    descend_actor_.sums = networks_.actor.gradient + actor_gradient_size_ - 2;
  }
  descend_actor_.learning_rate = model_.actor_learning_rate;
  descend_actor_.steps = &rows_.counters->actor_steps;
  FillCommon(descend_critics_);
  FillCommon(descend_actor_);
}

void CudaSacEngine::FillCommon(DescendArgs& args) const {
  const int parts = device_major_ < 9    ? 1
                    : options_.parts > 0 ? options_.parts
                                         : ChooseParts(rows_.padded_batch);
  args.row_tiles = rows_.padded_batch / kTileRows;
  args.parts = parts;
  args.tiles_of_part = (args.row_tiles + parts - 1) / parts;
  args.batch_size = rows_.batch_size;
  args.whole_batch = rows_.whole_batch;
  args.counters = rows_.counters;
  args.statistics = statistics_;
  args.squared_error = rows_.squared_error;
  args.q_sum = rows_.q_sum;
  args.log_pi = rows_.log_pi;
  args.actor_loss = rows_.actor_loss;
  args.log_alpha = log_alpha_;
  args.alpha_learning_rate = model_.alpha_learning_rate;
  args.target_entropy = model_.target_entropy;
  args.automatic_temperature = model_.automatic_temperature;
  args.overlaps = overlaps();
  args.has_entropy = model_.has_entropy;
}

}  // namespace troupe
