#ifndef TROUPE_LEARNER_RUNNING_MOMENTS_H_
#define TROUPE_LEARNER_RUNNING_MOMENTS_H_

#include <torch/torch.h>

#include <string>

#include "absl/status/status.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"
#include "learner/rank_group.h"

namespace troupe {

// Mean and variance of all samples ever seen, merged batch by batch (Chan, Golub and LeVeque,
// "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979), in float64 on
// the CPU.  Before the first sample the mean is 0 and the variance 1.  Not thread-safe.
class RunningMoments final {
 public:
  explicit RunningMoments(int64_t size);

  // `samples`: [n, size], n may be 0.
  void Add(const torch::Tensor& samples);
  // Those of all `ranks`, of which each gives its own.  Errors are RankGroup's.
  absl::Status AddOfAll(const torch::Tensor& samples, RankGroup& ranks);

  torch::Tensor Mean() const { return mean_.to(torch::kFloat32); }  // [size]
  // sqrt(variance + 1e-8), [size].
  torch::Tensor Std() const;

  // Tensors prefix + "mean", "variance" and "count".
  void Save(const std::string& prefix, TensorFile& file) const;
  // INVALID_ARGUMENT names the tensor; nothing is changed then.
  absl::Status Load(const std::string& prefix, const Safetensors& file);

 private:
  // Of n samples with this mean and variance.
  void Merge(double n, const torch::Tensor& mean, const torch::Tensor& variance);

  torch::Tensor mean_, variance_;  // [size]
  double count_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_RUNNING_MOMENTS_H_
