#ifndef TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_IMPL_H_
#define TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_IMPL_H_

#include <memory>
#include <vector>

#include "learner/fused/cuda_memory.h"
#include "learner/fused/cuda_replica_store.h"
#include "learner/fused/cuda_sac_engine.h"
#include "learner/fused/packed_network.h"
#include "learner/fused/rows_program.h"
#include "learner/fused/sac_kernels.h"

namespace troupe {

// A stream with the graphs that were captured from it, one for copies beside it, and events on
// them.
struct CudaQueue {
  cudaStream_t stream = nullptr, side = nullptr;
  cudaEvent_t turn_done[2] = {}, actor_ready = nullptr, actor_taken = nullptr;
  // One update without the actor's part; one with it; several of these.
  cudaGraphExec_t critics_only = nullptr, one = nullptr, several = nullptr;

  void DestroyGraphs() {
    for (cudaGraphExec_t* graph : {&critics_only, &one, &several}) {
      if (*graph != nullptr) cudaGraphExecDestroy(*graph);
      *graph = nullptr;
    }
  }

  ~CudaQueue() {
    DestroyGraphs();
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

// The engine's parts; cuda_sac_setup.cc makes them, cuda_sac_state.cc takes the state in and out.
class CudaSacEngine final : public SacEngine {
 public:
  CudaSacEngine(const SacModel& model, const CudaOptions& options, RankGroup* ranks)
      : model_(model), options_(options), ranks_(ranks) {}
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
    return options_.overlap && device_major_ >= 9 && model_.actor_update_interval == 1 &&
           ranks_ == nullptr;
  }
  void FillSizes();
  DeviceVector AllocateVector(int64_t size, int64_t transposed_size);
  void AllocateNetworks();
  NormRows AllocateNorm(const PackedLayer& layer, int64_t rows);
  void AllocateRows();
  absl::Status SetProgram(const BuiltProgram& built, RowsArgs& args);
  absl::Status MakePrograms(const cudaDeviceProp& device);
  void SetValueHeads();
  void FillDescendArgs();
  void FillCommon(DescendArgs& args) const;
  static void AddJobs(const PackedNetwork& network, const DeviceVector& vector, float* target,
                      const float* x, int x_stride, float* const* h, float* const* d,
                      const NormRows* norms, int64_t row, DescendArgs& args);
  absl::Status LaunchUpdate(bool with_actor);
  absl::Status Descend(const DescendArgs& args, bool of_critics);
  absl::Status CaptureAll();
  absl::Status MeetRanks();
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
  RankGroup* const ranks_;                                       // null: alone
  int64_t critics_gradient_size_ = 0, actor_gradient_size_ = 0;  // with the sums behind them
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

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_CUDA_SAC_ENGINE_IMPL_H_
