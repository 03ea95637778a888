#include "learner/adam.h"

#include <cmath>

#include "common/tensor_file.h"

namespace troupe {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;

// The numbers of one step.
struct StepSizes {
  double learning_rate;  // divided by the first moment's bias correction
  double inverse_root;   // 1 / sqrt of the second moment's bias correction
  double epsilon;
};

// One pass over memory where LibTorch would make eight.
template <typename T>
[[gnu::always_inline]] inline void StepOver(int64_t n, StepSizes sizes, T* __restrict values,
                                            T* __restrict gradients, T* __restrict m,
                                            T* __restrict v) {
  const T beta1 = kBeta1, beta2 = kBeta2, epsilon = sizes.epsilon;
  const T rate = sizes.learning_rate, inverse_root = sizes.inverse_root;
  for (int64_t i = 0; i < n; ++i) {
    const T g = gradients[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    values[i] -= rate * m[i] / (std::sqrt(v[i]) * inverse_root + epsilon);
    gradients[i] = 0;
  }
}

#if defined(__x86_64__)
// The same operations, eight at a time; no fused ones, so that every machine gets the same bits.
[[gnu::target("avx2")]] void StepAvx2(int64_t n, StepSizes sizes, float* values, float* gradients,
                                      float* m, float* v) {
  StepOver(n, sizes, values, gradients, m, v);
}
#endif

void StepOnCpu(int64_t n, StepSizes sizes, double* values, double* gradients, double* m,
               double* v) {
  StepOver(n, sizes, values, gradients, m, v);
}

void StepOnCpu(int64_t n, StepSizes sizes, float* values, float* gradients, float* m, float* v) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return StepAvx2(n, sizes, values, gradients, m, v);
#endif
  StepOver(n, sizes, values, gradients, m, v);
}

}  // namespace

Adam::Adam(const torch::Tensor& like, double learning_rate, double epsilon, Place count)
    : learning_rate_(learning_rate),
      epsilon_(epsilon),
      device_step_(count == Place::kDevice
                       ? torch::zeros({1}, like.options().dtype(torch::kFloat64))
                       : torch::Tensor()),
      m_(torch::zeros_like(like)),
      v_(torch::zeros_like(like)) {}

int64_t Adam::steps() const {
  return device_step_.defined() ? device_step_.to(torch::kInt64).item<int64_t>() : step_;
}

void Adam::set_steps(int64_t steps) {
  step_ = steps;
  if (device_step_.defined()) device_step_.fill_(static_cast<double>(steps));
}

void Adam::Step(const torch::Tensor& values, const torch::Tensor& gradients) {
  const torch::NoGradGuard no_grad;
  if (device_step_.defined()) return StepOnDevice(values, gradients);
  ++step_;
  const StepSizes sizes{learning_rate_ / (1 - std::pow(kBeta1, step_)),
                        1 / std::sqrt(1 - std::pow(kBeta2, step_)), epsilon_};
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "adam", [&] {
    StepOnCpu(values.numel(), sizes, values.data_ptr<scalar_t>(), gradients.data_ptr<scalar_t>(),
              m_.data_ptr<scalar_t>(), v_.data_ptr<scalar_t>());
  });
}

void Adam::StepOnDevice(const torch::Tensor& values, const torch::Tensor& gradients) {
  device_step_.add_(1);
  // 1 - beta^t, which differs little from 0 at first.
  const auto correction = [&](double beta) {
    return device_step_.mul(std::log(beta)).expm1_().neg_().to(values.scalar_type());
  };
  m_.lerp_(gradients, 1 - kBeta1);
  v_.mul_(kBeta2).addcmul_(gradients, gradients, 1 - kBeta2);
  const torch::Tensor root = v_.sqrt().div_(correction(kBeta2).sqrt_()).add_(epsilon_);
  values.addcdiv_(m_.div(correction(kBeta1)), root, -learning_rate_);
  gradients.zero_();
}

void Adam::Save(const std::string& prefix, TensorFile& file) const {
  file.Add(prefix + "exp_avg", m_);
  file.Add(prefix + "exp_avg_sq", v_);
  file.Add(prefix + "step", torch::full({}, steps(), torch::kInt64));
}

absl::Status Adam::Load(const std::string& prefix, const Safetensors& file) {
  const auto m = ReadTensor(file, prefix + "exp_avg", m_.scalar_type(), m_.sizes().vec());
  if (!m.ok()) return m.status();
  const auto v = ReadTensor(file, prefix + "exp_avg_sq", v_.scalar_type(), v_.sizes().vec());
  if (!v.ok()) return v.status();
  const auto step = ReadTensor(file, prefix + "step", torch::kInt64, {});
  if (!step.ok()) return step.status();
  m_.copy_(*m);
  v_.copy_(*v);
  set_steps(step->item<int64_t>());
  return absl::OkStatus();
}

}  // namespace troupe
