#include "learner/make_algorithm.h"

#include <torch/torch.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "learner/ppo.h"
#include "learner/sac.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Algorithm>> MakeAlgorithm(const proto::Config& config,
                                                         const Layout& layout) {
  const proto::Learner& learner = config.learner();
  try {
    const torch::Device device(learner.device());
    const int cuda_devices =
        torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
    if (device.is_cuda() && std::max<int>(device.index(), 0) >= cuda_devices) {
      return absl::InvalidArgumentError(absl::StrCat("learner.device '", learner.device(),
                                                     "': LibTorch sees ", cuda_devices,
                                                     " CUDA devices"));
    }
    at::set_num_threads(learner.num_threads());
    at::globalContext().setFlushDenormal(true);
    if (learner.has_ppo()) {
      absl::StatusOr<std::unique_ptr<Ppo>> ppo =
          Ppo::Create({.config = learner.ppo(),
                       .total_env_steps = config.total_env_steps(),
                       .seed = config.seed(),
                       .device = device},
                      layout);
      if (!ppo.ok()) return ppo.status();
      return std::unique_ptr<Algorithm>(*std::move(ppo));
    }
    absl::StatusOr<std::unique_ptr<Sac>> sac =
        Sac::Create({.config = learner.sac(),
                     .seed = config.seed(),
                     .tensors = torch::TensorOptions().dtype(torch::kFloat32).device(device)},
                    layout);
    if (!sac.ok()) return sac.status();
    return std::unique_ptr<Algorithm>(*std::move(sac));
  } catch (const std::exception& e) {
    const std::string what = e.what();  // the first line; a backtrace follows
    return absl::InvalidArgumentError(
        absl::StrCat("learner.device '", learner.device(), "': ", what.substr(0, what.find('\n'))));
  }
}

}  // namespace troupe
