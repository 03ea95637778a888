#include "learner/make_algorithm.h"

#include <torch/torch.h>

#include "absl/strings/str_cat.h"
#include "learner/sac.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Algorithm>> MakeAlgorithm(const proto::Config& config,
                                                         const Layout& layout) {
  const proto::Learner& learner = config.learner();
  try {
    const torch::Device device(learner.device());
    // Throws now rather than at the first update.
    torch::zeros({1}, torch::TensorOptions().device(device));
    at::set_num_threads(learner.num_threads());
    at::globalContext().setFlushDenormal(true);
    absl::StatusOr<std::unique_ptr<Sac>> sac =
        Sac::Create({.config = learner.sac(),
                     .seed = config.seed(),
                     .tensors = torch::TensorOptions().dtype(torch::kFloat32).device(device)},
                    layout);
    if (!sac.ok()) return sac.status();
    return std::unique_ptr<Algorithm>(*std::move(sac));
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("learner.device '", learner.device(), "': ", e.what()));
  }
}

}  // namespace troupe
