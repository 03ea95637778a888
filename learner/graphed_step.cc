#include "learner/graphed_step.h"

#ifdef TROUPE_TORCH_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>
#endif

namespace troupe {

#ifdef TROUPE_TORCH_CUDA

namespace {

using torch::Tensor;

// So that libraries have made their handles and the allocator has its memory.
constexpr int kWarmUps = 3;

std::vector<Tensor> TensorsOf(const Transitions& b) {
  std::vector<Tensor> tensors = {b.s, b.a, b.r, b.gamma, b.d, b.s_next};
  if (b.weight) tensors.push_back(*b.weight);
  return tensors;
}

Transitions TransitionsOf(const std::vector<Tensor>& tensors) {
  Transitions b{.s = tensors[0],
                .a = tensors[1],
                .r = tensors[2],
                .gamma = tensors[3],
                .d = tensors[4],
                .s_next = tensors[5]};
  if (tensors.size() > 6) b.weight = tensors[6];
  return b;
}

// Older LibTorch is told of the generator before the capture; newer finds it when it draws.
template <typename Graph>
void Register(const at::Generator& generator, Graph& graph) {
  if constexpr (requires { graph.register_generator_state(generator); }) {
    graph.register_generator_state(generator);
  }
}

class CudaGraphedStep final : public GraphedStep {
 public:
  CudaGraphedStep(const torch::Device& device, const at::Generator& generator, Step step)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())),
        generator_(generator),
        step_(std::move(step)) {}

  absl::Status Take(const Transitions& b) override {
    if (given_up_ || b.rows || b.images || !TakeInputs(b)) return step_(b);
    const c10::cuda::CUDAStream before = c10::cuda::getCurrentCUDAStream(stream_.device_index());
    Follow(before, stream_);
    absl::Status status;
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      status = TakeOnStream();
    }
    Follow(stream_, before);
    return status;
  }

 private:
  // What `later` does from now on comes after what `earlier` has been given.
  static void Follow(const c10::cuda::CUDAStream& earlier, const c10::cuda::CUDAStream& later) {
    at::cuda::CUDAEvent event;
    event.record(earlier);
    event.block(later);
  }

  // Copies the batch to where the graph reads it; false if it has another shape.
  bool TakeInputs(const Transitions& b) {
    const std::vector<Tensor> given = TensorsOf(b);
    if (inputs_.empty()) {
      for (const Tensor& tensor : given) inputs_.push_back(tensor.clone().contiguous());
      return true;
    }
    if (given.size() != inputs_.size()) return false;
    for (size_t i = 0; i < given.size(); ++i) {
      if (given[i].sizes() != inputs_[i].sizes()) return false;
    }
    for (size_t i = 0; i < given.size(); ++i) inputs_[i].copy_(given[i]);
    return true;
  }

  absl::Status TakeOnStream() {
    if (graph_ == nullptr && taken_++ < kWarmUps) return step_(TransitionsOf(inputs_));
    if (graph_ == nullptr && !Capture()) {
      given_up_ = true;
      return step_(TransitionsOf(inputs_));
    }
    graph_->replay();
    return absl::OkStatus();
  }

  bool Capture() {
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    std::string why;
    try {
      Register(generator_, *graph);
      graph->capture_begin();
      const absl::Status status = step_(TransitionsOf(inputs_));
      why = status.ok() ? "" : std::string(status.message());
    } catch (const std::exception& e) {
      why = e.what();
    }
    try {
      graph->capture_end();
    } catch (const std::exception& e) {
      if (why.empty()) why = e.what();
    }
    if (!why.empty()) {
      spdlog::warn("updates are not captured as a graph: {}", why.substr(0, why.find('\n')));
      return false;
    }
    spdlog::info("updates are captured as a graph");
    graph_ = std::move(graph);
    return true;
  }

  const c10::cuda::CUDAStream stream_;
  const at::Generator generator_;
  const Step step_;
  std::vector<Tensor> inputs_;  // as of Transitions
  int taken_ = 0;
  bool given_up_ = false;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace

std::unique_ptr<GraphedStep> MakeGraphedStep(const torch::Device& device,
                                             const at::Generator& generator,
                                             GraphedStep::Step step) {
  if (!device.is_cuda()) return nullptr;
  return std::make_unique<CudaGraphedStep>(device, generator, std::move(step));
}

#else

std::unique_ptr<GraphedStep> MakeGraphedStep(const torch::Device& device,
                                             const at::Generator& generator,
                                             GraphedStep::Step step) {
  return nullptr;
}

#endif

}  // namespace troupe
