#include "learner/make_algorithm.h"

#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "learner/fused/cpu/cpu_ppo_engine.h"
#include "learner/fused/cpu/cpu_sac_engine.h"
#include "learner/fused/cuda_ppo_engine.h"
#include "learner/fused/cuda_sac_engine.h"
#include "learner/fused_sac.h"
#include "learner/ppo.h"
#include "learner/prioritized.h"
#include "learner/sac.h"

namespace troupe {
namespace {

absl::StatusOr<std::unique_ptr<SacEngine>> MakeSacEngine(const proto::Learner& learner,
                                                         const torch::Device& device,
                                                         const SacModel& model, RankGroup* ranks) {
  if (!device.is_cuda()) {
    return MakeCpuSacEngine(model, learner.num_threads(), cpu::BestKernels(), ranks);
  }
  const int index = std::max<int>(device.index(), 0), devices = CudaDeviceCount();
  if (index >= devices) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine sees ", devices, " CUDA devices"));
  }
  return MakeCudaSacEngine(
      model, {.device = index, .exact = learner.matrix_precision() == proto::FULL_FLOAT32}, ranks);
}

// Logs which engine it is; `fused`: OK, or why it is not the fused one.  INVALID_ARGUMENT: the
// configuration demands that one.
absl::Status LogEngine(const proto::Learner& learner, const absl::Status& fused) {
  if (fused.ok()) {
    spdlog::info("engine: fused, on {}", learner.device());
    return absl::OkStatus();
  }
  if (!absl::IsUnimplemented(fused)) return fused;
  if (learner.engine() == proto::FUSED) {
    return absl::InvalidArgumentError(absl::StrCat("learner.engine FUSED: ", fused.message()));
  }
  spdlog::info("engine: reference, on {}: {}", learner.device(), std::string(fused.message()));
  return absl::OkStatus();
}

// None: the learner's table draws uniformly.
std::optional<Prioritized> PrioritizedOf(const proto::Config& config) {
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, config.learner().table());
  if (!table.ok() || table->selector() != proto::PRIORITIZED) return std::nullopt;
  return Prioritized(config.learner().sac().importance_exponent(), config.total_env_steps(),
                     table->priority_exponent());
}

// The fused engine, if that is wanted and computes this; null: the reference is to be used.
absl::StatusOr<std::unique_ptr<Algorithm>> MakeFusedSac(const proto::Config& config,
                                                        const torch::Device& device,
                                                        const Layout& layout, RankGroup* ranks) {
  const proto::Learner& learner = config.learner();
  if (learner.engine() == proto::REFERENCE) return nullptr;
  absl::StatusOr<std::unique_ptr<FusedSac>> sac = FusedSac::Create(
      {.config = learner.sac(),
       .seed = config.seed(),
       .prioritized = PrioritizedOf(config),
       .ranks = ranks == nullptr ? 1 : ranks->size()},
      layout, [&](const SacModel& model) -> absl::StatusOr<std::unique_ptr<SacEngine>> {
        if (device.is_cuda() && PrioritizedOf(config)) {
          return absl::UnimplementedError("on CUDA the fused engine weighs no losses");
        }
        return MakeSacEngine(learner, device, model, ranks);
      });
  if (absl::Status status = LogEngine(learner, sac.status()); !status.ok()) return status;
  if (!sac.ok()) return nullptr;
  return std::unique_ptr<Algorithm>(*std::move(sac));
}

// INVALID_ARGUMENT: LibTorch has no such device.
absl::Status CheckDevice(const torch::Device& device) {
  const int cuda_devices =
      torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
  if (!device.is_cuda() || std::max<int>(device.index(), 0) < cuda_devices) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "learner.device '", device.str(), "': LibTorch sees ", cuda_devices, " CUDA devices"));
}

// PPO, whose fused engine needs no LibTorch with CUDA.
absl::StatusOr<std::unique_ptr<Algorithm>> MakePpo(const proto::Config& config,
                                                   const torch::Device& device,
                                                   const Layout& layout, RankGroup* ranks) {
  const proto::Learner& learner = config.learner();
  MakePpoEngine make_engine;
  if (learner.engine() != proto::REFERENCE) {
    make_engine = [device, ranks, num_threads = learner.num_threads()](
                      const PpoModel& model) -> absl::StatusOr<std::unique_ptr<PpoEngine>> {
      if (!device.is_cuda()) return MakeCpuPpoEngine(model, num_threads, ranks);
      return MakeCudaPpoEngine(model, std::max<int>(device.index(), 0), ranks);
    };
  }
  absl::StatusOr<std::unique_ptr<Ppo>> ppo =
      Ppo::Create({.config = learner.ppo(),
                   .total_env_steps = config.total_env_steps(),
                   .seed = config.seed(),
                   .device = device,
                   .make_engine = make_engine,
                   .ranks = ranks},
                  layout);
  if (!ppo.ok()) {
    const absl::Status of_device = CheckDevice(device);
    return of_device.ok() ? ppo.status() : of_device;
  }
  if (make_engine != nullptr) {
    if (absl::Status status = LogEngine(learner, (*ppo)->fused()); !status.ok()) return status;
  }
  // What is left to LibTorch is too small to share, and its threads would wait for more at work.
  if ((*ppo)->fused().ok()) at::set_num_threads(1);
  return std::unique_ptr<Algorithm>(*std::move(ppo));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Algorithm>> MakeAlgorithm(const proto::Config& config,
                                                         const Layout& layout, RankGroup* ranks) {
  const proto::Learner& learner = config.learner();
  try {
    const torch::Device device(learner.device());
    at::set_num_threads(learner.num_threads());
    at::globalContext().setFlushDenormal(true);
    if (!learner.has_ppo()) {
      absl::StatusOr<std::unique_ptr<Algorithm>> fused =
          MakeFusedSac(config, device, layout, ranks);
      if (!fused.ok() || *fused != nullptr) return fused;
    }
    if (learner.has_ppo()) return MakePpo(config, device, layout, ranks);
    if (absl::Status status = CheckDevice(device); !status.ok()) return status;
    absl::StatusOr<std::unique_ptr<Sac>> sac =
        Sac::Create({.config = learner.sac(),
                     .seed = config.seed(),
                     .tensors = torch::TensorOptions().dtype(torch::kFloat32).device(device),
                     .prioritized = PrioritizedOf(config),
                     .ranks = ranks},
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
