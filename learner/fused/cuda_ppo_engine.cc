#include "learner/fused/cuda_ppo_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/fused/block_ppo_engine.h"
#include "learner/fused/cuda_memory.h"
#include "learner/fused/cuda_sac_engine.h"
#include "learner/fused/ppo_kernels.h"

namespace troupe {
namespace {

// What a kernel may use of a block's shared memory without asking for more.
constexpr int64_t kSharedBytes = 48 << 10;
// Larger graphs take long to make.
constexpr int64_t kMostMinibatchesOfGraph = 4096;

class CudaPpoMachine final : public PpoMachine {
 public:
  CudaPpoMachine(int device, RankGroup* ranks) : device_(device), ranks_(ranks) {}
  ~CudaPpoMachine() override {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Open() {
    absl::Status status = CudaStatus(cudaSetDevice(device_), "choosing the GPU");
    if (!status.ok()) return status;
    status =
        CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    return status.ok() ? uploads_.Open() : status;
  }

  int threads() const override { return kPpoThreads; }
  int64_t shared_bytes() const override { return kSharedBytes; }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    is_stale_ = true;
    void* const memory = arena_.Allocate<char>(bytes);
    if (memory == nullptr) return arena_.status();
    // The arena clears in another stream.
    const absl::Status status = CudaStatus(cudaDeviceSynchronize(), "clearing memory of the GPU");
    if (!status.ok()) return status;
    return memory;
  }

  absl::Status Upload(const void* from, int64_t bytes, void* to) override {
    return uploads_.Upload(from, bytes, to, stream_);
  }

  absl::Status Download(const void* from, int64_t bytes, void* to) override {
    const absl::Status status = CudaStatus(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copying from the GPU");
    if (!status.ok()) return status;
    return CudaStatus(cudaStreamSynchronize(stream_), "waiting for PPO's minibatches");
  }

  // The first sum makes what later ones need, which cannot be done while a graph is captured.
  absl::Status Begin(const PpoTask& task) override {
    if (ranks_ == nullptr) return absl::OkStatus();
    absl::Status status = SumOverRanks(task);
    if (absl::IsUnimplemented(status)) {
      return absl::UnimplementedError(absl::StrCat(
          "on CUDA the fused engine shares its updates where the ranks sum on the GPU, but ",
          status.message()));
    }
    status.Update(CudaStatus(cudaStreamSynchronize(stream_), "waiting for the first sum"));
    return status;
  }

  // A batch with fewer minibatches uses the same graph: kernels of what is missing end at once.
  // With ranks each sums as often in any case, whether it has a graph or not.
  absl::Status RunEpochs(const PpoTask& task, int64_t epochs, int64_t minibatches) override {
    is_stale_ = is_stale_ || minibatches > minibatches_;
    minibatches_ = std::max(minibatches, minibatches_);
    const int64_t at_once = epochs * minibatches_ <= kMostMinibatchesOfGraph ? epochs : 1;
    absl::Status status;
    if (is_stale_ || at_once != captured_epochs_) status = MakeGraph(task, at_once);
    for (int64_t done = 0; done < epochs && status.ok(); done += at_once) {
      status = graph_ == nullptr
                   ? Launch(task, at_once)
                   : CudaStatus(cudaGraphLaunch(graph_, stream_), "PPO's minibatches");
    }
    return status;
  }

 private:
  absl::Status SumOverRanks(const PpoTask& task) {
    return ranks_->SumOnDevice(task.actor.gradient, PpoSharedFloats(task), stream_);
  }

  absl::Status LaunchMinibatch(const PpoTask& task, int i) {
    const bool alone = ranks_ == nullptr;
    absl::Status status =
        CudaStatus(LaunchPpoGradient(task, i, /*with_squares=*/alone, stream_), "PPO's gradient");
    if (!alone && status.ok()) status = SumOverRanks(task);
    if (!alone && status.ok()) {
      status = CudaStatus(LaunchPpoSquares(task, i, stream_), "PpoSquares");
    }
    return status.ok() ? CudaStatus(LaunchPpoDescend(task, i, stream_), "PpoDescend") : status;
  }

  absl::Status Launch(const PpoTask& task, int64_t epochs) {
    absl::Status status;
    for (int64_t epoch = 0; epoch < epochs && status.ok(); ++epoch) {
      status = CudaStatus(LaunchPpoBeginEpoch(task, stream_), "PpoBeginEpoch");
      for (int i = 0; i < minibatches_ && status.ok(); ++i) status = LaunchMinibatch(task, i);
    }
    return status;
  }

  absl::Status MakeGraph(const PpoTask& task, int64_t epochs) {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
    captured_epochs_ = epochs;
    is_stale_ = false;
    const absl::Status status = Capture(task, epochs);
    if (status.ok() || ranks_ == nullptr) return status;
    // Sums over ranks that cannot be captured: minibatches are launched kernel by kernel.
    cudaGetLastError();
    return absl::OkStatus();
  }

  absl::Status Capture(const PpoTask& task, int64_t epochs) {
    absl::Status status =
        CudaStatus(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                   "beginning to capture PPO's minibatches");
    if (!status.ok()) return status;
    status = Launch(task, epochs);
    cudaGraph_t captured = nullptr;
    status.Update(CudaStatus(cudaStreamEndCapture(stream_, &captured),
                             "ending to capture PPO's minibatches"));
    if (status.ok()) {
      status =
          CudaStatus(cudaGraphInstantiate(&graph_, captured, 0), "making a graph of minibatches");
    }
    if (captured != nullptr) cudaGraphDestroy(captured);
    return status;
  }

  const int device_;
  RankGroup* const ranks_;
  cudaStream_t stream_ = nullptr;
  DeviceArena arena_;
  UploadRing uploads_;
  cudaGraphExec_t graph_ = nullptr;  // null: there is none yet, or none can be made
  bool is_stale_ = true;             // what it was made of has changed
  int64_t minibatches_ = 0;          // of an epoch, most so far
  int64_t captured_epochs_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PpoEngine>> MakeCudaPpoEngine(const PpoModel& model, int device,
                                                             RankGroup* ranks) {
  if (const int devices = CudaDeviceCount(); device >= devices) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine sees ", devices, " CUDA devices"));
  }
  auto machine = std::make_unique<CudaPpoMachine>(device, ranks);
  if (absl::Status status = machine->Open(); !status.ok()) return status;
  return MakeBlockPpoEngine(model, std::move(machine), ranks);
}

}  // namespace troupe
