#include "learner/shared_sums.h"

namespace troupe {

using torch::Tensor;

absl::Status SumOverRanks(const Tensor& values, RankGroup& ranks) {
  if (values.is_cuda()) {
    absl::Status status = ranks.SumOnDevice(values.data_ptr<float>(), values.numel());
    if (!absl::IsUnimplemented(status)) return status;
  }
  const Tensor on_host = values.to(torch::kCPU);
  absl::Status status =
      ranks.Sum(absl::MakeSpan(on_host.data_ptr<float>(), static_cast<size_t>(on_host.numel())));
  if (status.ok() && !values.is_cpu()) values.copy_(on_host);
  return status;
}

}  // namespace troupe
