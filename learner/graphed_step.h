#ifndef TROUPE_LEARNER_GRAPHED_STEP_H_
#define TROUPE_LEARNER_GRAPHED_STEP_H_

#include <torch/torch.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "learner/transitions.h"

namespace troupe {

// A gradient step that a GPU repeats as one graph, after it has been taken a few times as it is
// written.  What cannot be captured goes on being taken as it is written, and the log says why.
//
// Not thread-safe.
class GraphedStep {
 public:
  using Step = std::function<absl::Status(const Transitions&)>;

  virtual ~GraphedStep() = default;

  // Of `step` with these transitions.  Where a graph is repeated, errors are those of its launch.
  virtual absl::Status Take(const Transitions& b) = 0;
};

// `step` depends on nothing of the host's but its argument, and draws its noise from `generator`
// alone.  Null: the device is no GPU, or this build's LibTorch has no CUDA.
std::unique_ptr<GraphedStep> MakeGraphedStep(const torch::Device& device,
                                             const at::Generator& generator,
                                             GraphedStep::Step step);

}  // namespace troupe

#endif  // TROUPE_LEARNER_GRAPHED_STEP_H_
