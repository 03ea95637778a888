#ifndef TROUPE_LEARNER_ADAM_H_
#define TROUPE_LEARNER_ADAM_H_

#include <torch/torch.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/safetensors.h"
#include "common/tensor_file.h"

namespace troupe {

// Adam (Kingma and Ba, arXiv 1412.6980) on one vector, as PyTorch computes it: beta 0.9 and 0.999.
// On a GPU the number of steps lies in its memory, so that a graph that repeats a step counts it.
// Not thread-safe.
class Adam final {
 public:
  enum class Place { kHost, kDevice };

  // For vectors of the size, dtype and device of `like`.
  Adam(const torch::Tensor& like, double learning_rate, double epsilon = 1e-8)
      : Adam(like, learning_rate, epsilon, like.is_cpu() ? Place::kHost : Place::kDevice) {}
  Adam(const torch::Tensor& like, double learning_rate, double epsilon, Place count);

  void set_learning_rate(double learning_rate) { learning_rate_ = learning_rate; }

  // values -= step(gradients), then gradients = 0; both [n].
  void Step(const torch::Tensor& values, const torch::Tensor& gradients);

  // Its state: both moments, and the steps taken.
  const torch::Tensor& m() const { return m_; }
  const torch::Tensor& v() const { return v_; }
  int64_t steps() const;  // waits for the device
  void set_steps(int64_t steps);

  // Tensors prefix + "exp_avg", "exp_avg_sq" and "step".
  void Save(const std::string& prefix, TensorFile& file) const;
  // INVALID_ARGUMENT names the tensor; nothing is changed then.
  absl::Status Load(const std::string& prefix, const Safetensors& file);

 private:
  void StepOnDevice(const torch::Tensor& values, const torch::Tensor& gradients);

  double learning_rate_;
  const double epsilon_;
  int64_t step_ = 0;           // on the host
  torch::Tensor device_step_;  // [1], float64, on the device; undefined: the host counts
  torch::Tensor m_, v_;        // first and second moments
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_ADAM_H_
