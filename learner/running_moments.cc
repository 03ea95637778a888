#include "learner/running_moments.h"

namespace troupe {

using torch::Tensor;

RunningMoments::RunningMoments(int64_t size)
    : mean_(torch::zeros({size}, torch::kFloat64)),
      variance_(torch::ones({size}, torch::kFloat64)) {}

void RunningMoments::Add(const Tensor& samples) {
  if (samples.size(0) == 0) return;
  const torch::NoGradGuard no_grad;
  const Tensor x = samples.to(torch::kCPU, torch::kFloat64);
  Merge(static_cast<double>(x.size(0)), x.mean(0), x.var(0, /*unbiased=*/false));
}

absl::Status RunningMoments::AddOfAll(const Tensor& samples, RankGroup& ranks) {
  const torch::NoGradGuard no_grad;
  const Tensor x = samples.to(torch::kCPU, torch::kFloat64);
  const auto sum = [&](Tensor& values) {
    return ranks.Sum(
        absl::MakeSpan(values.data_ptr<double>(), static_cast<size_t>(values.numel())));
  };
  Tensor sums = torch::cat({x.sum(0), torch::full({1}, x.size(0), torch::kFloat64)});
  absl::Status status = sum(sums);
  const double n = sums[-1].item<double>();
  if (!status.ok() || n == 0) return status;
  const Tensor mean = sums.narrow(0, 0, x.size(1)) / n;
  Tensor squares = (x - mean).square().sum(0);
  if (status = sum(squares); !status.ok()) return status;
  Merge(n, mean, squares / n);
  return absl::OkStatus();
}

void RunningMoments::Merge(double n, const Tensor& mean, const Tensor& variance) {
  const Tensor delta = mean - mean_;
  const double total = count_ + n;
  const Tensor squares = variance_ * count_ + variance * n + delta.square() * (count_ * n / total);
  mean_ = mean_ + delta * (n / total);
  variance_ = squares / total;
  count_ = total;
}

Tensor RunningMoments::Std() const { return (variance_ + 1e-8).sqrt().to(torch::kFloat32); }

void RunningMoments::Save(const std::string& prefix, TensorFile& file) const {
  file.Add(prefix + "mean", mean_);
  file.Add(prefix + "variance", variance_);
  file.Add(prefix + "count", torch::full({}, count_, torch::kFloat64));
}

absl::Status RunningMoments::Load(const std::string& prefix, const Safetensors& file) {
  const auto mean = ReadTensor(file, prefix + "mean", torch::kFloat64, mean_.sizes().vec());
  if (!mean.ok()) return mean.status();
  const auto variance =
      ReadTensor(file, prefix + "variance", torch::kFloat64, variance_.sizes().vec());
  if (!variance.ok()) return variance.status();
  const auto count = ReadTensor(file, prefix + "count", torch::kFloat64, {});
  if (!count.ok()) return count.status();
  mean_ = *mean;
  variance_ = *variance;
  count_ = count->item<double>();
  return absl::OkStatus();
}

}  // namespace troupe
