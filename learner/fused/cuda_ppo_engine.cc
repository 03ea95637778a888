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
  explicit CudaPpoMachine(int device) : device_(device) {}
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
    captured_minibatches_ = 0;
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

  absl::Status RunEpochs(const PpoTask& task, int64_t epochs, int64_t minibatches) override {
    const int64_t at_once = epochs * minibatches <= kMostMinibatchesOfGraph ? epochs : 1;
    absl::Status status;
    if (graph_ == nullptr || minibatches > captured_minibatches_ || at_once != captured_epochs_) {
      status = Capture(task, at_once, minibatches);
    }
    for (int64_t done = 0; done < epochs && status.ok(); done += at_once) {
      status = CudaStatus(cudaGraphLaunch(graph_, stream_), "PPO's minibatches");
    }
    return status;
  }

 private:
  absl::Status Launch(const PpoTask& task, int64_t epochs, int64_t minibatches) {
    absl::Status status;
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      status.Update(CudaStatus(LaunchPpoBeginEpoch(task, stream_), "PpoBeginEpoch"));
      for (int i = 0; i < minibatches && status.ok(); ++i) {
        status.Update(CudaStatus(LaunchPpoMinibatch(task, i, stream_), "a minibatch of PPO"));
      }
    }
    return status;
  }

  // A batch with fewer minibatches uses the same graph: kernels of what is missing end at once.
  absl::Status Capture(const PpoTask& task, int64_t epochs, int64_t minibatches) {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
    absl::Status status =
        CudaStatus(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                   "beginning to capture PPO's minibatches");
    if (!status.ok()) return status;
    status = Launch(task, epochs, minibatches);
    cudaGraph_t captured = nullptr;
    status.Update(CudaStatus(cudaStreamEndCapture(stream_, &captured),
                             "ending to capture PPO's minibatches"));
    if (!status.ok()) return status;
    status =
        CudaStatus(cudaGraphInstantiate(&graph_, captured, 0), "making a graph of minibatches");
    cudaGraphDestroy(captured);
    captured_epochs_ = epochs;
    captured_minibatches_ = minibatches;
    return status;
  }

  const int device_;
  cudaStream_t stream_ = nullptr;
  DeviceArena arena_;
  UploadRing uploads_;
  cudaGraphExec_t graph_ = nullptr;
  int64_t captured_epochs_ = 0, captured_minibatches_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PpoEngine>> MakeCudaPpoEngine(const PpoModel& model, int device) {
  if (const int devices = CudaDeviceCount(); device >= devices) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine sees ", devices, " CUDA devices"));
  }
  auto machine = std::make_unique<CudaPpoMachine>(device);
  if (absl::Status status = machine->Open(); !status.ok()) return status;
  return MakeBlockPpoEngine(model, std::move(machine));
}

}  // namespace troupe
