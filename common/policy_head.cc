#include "common/policy_head.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe {
namespace {

constexpr double kHalfLog2Pi = 0.91893853320467274;

double Bounded(const PolicyMetadata& metadata, double action, int64_t i) {
  return std::clamp(ToNativeUnits(metadata, action, i), metadata.action_low[i],
                    metadata.action_high[i]);
}

bool IsSquashed(const PolicyMetadata& metadata) {
  return metadata.distribution == Distribution::kSquashedGaussian || metadata.squash;
}

// `u`: what the Gaussian gave for element `i`.
double ForEnvironment(const PolicyMetadata& metadata, double u, int64_t i) {
  return Bounded(metadata, IsSquashed(metadata) ? std::tanh(u) : u, i);
}

// log |d tanh(u) / du|, exact where tanh saturates: 2 (log 2 - u - softplus(-2 u)).
double LogTanhSlope(double u) {
  const double softplus = std::log1p(std::exp(-2 * std::abs(u))) + std::max(-2 * u, 0.0);
  return 2 * (std::log(2.0) - u - softplus);
}

bool DrawGaussian(const PolicyMetadata& metadata, const float* head, const float* log_std,
                  std::mt19937_64& random, const DrawnAction& out) {
  const bool squashed_density = metadata.distribution == Distribution::kSquashedGaussian;
  std::normal_distribution<double> normal;
  double log_prob = 0;
  for (int64_t i = 0; i < metadata.action_size; ++i) {
    double spread = log_std[i];
    if (squashed_density) spread = std::clamp(spread, metadata.log_std_min, metadata.log_std_max);
    const double noise = normal(random);
    const double u = head[i] + std::exp(spread) * noise;
    if (std::isnan(u)) return false;
    log_prob -= 0.5 * noise * noise + spread + kHalfLog2Pi;
    if (squashed_density) log_prob -= LogTanhSlope(u);
    out.env[i] = static_cast<float>(ForEnvironment(metadata, u, i));
    out.row[i] = squashed_density ? out.env[i] : static_cast<float>(ToNativeUnits(metadata, u, i));
    if (!std::isfinite(out.row[i])) return false;
  }
  *out.log_prob = static_cast<float>(log_prob);
  return std::isfinite(*out.log_prob);
}

// Calls `use` with the logits of each element of the action; false if one is not a number.
template <typename Use>
bool ForEachChoice(const PolicyMetadata& metadata, const float* head, Use use) {
  for (int64_t i = 0; i < metadata.action_size; ++i) {
    const absl::Span<const float> logits(head, metadata.num_choices[i]);
    const auto is_nan = [](float logit) { return std::isnan(logit); };
    if (std::any_of(logits.begin(), logits.end(), is_nan)) return false;
    use(i, logits);
    head += metadata.num_choices[i];
  }
  return true;
}

bool DrawChoices(const PolicyMetadata& metadata, const float* head, std::mt19937_64& random,
                 const DrawnAction& out) {
  double log_prob = 0;
  std::uniform_real_distribution<double> uniform(0, 1);
  const bool good = ForEachChoice(metadata, head, [&](int64_t i, absl::Span<const float> logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (const float logit : logits) total += std::exp(logit - max);
    double rest = uniform(random) * total;
    size_t choice = 0;
    while (choice + 1 < logits.size() && (rest -= std::exp(logits[choice] - max)) >= 0) ++choice;
    log_prob += logits[choice] - max - std::log(total);
    out.env[i] = out.row[i] = static_cast<float>(choice);
  });
  *out.log_prob = static_cast<float>(log_prob);
  return good && std::isfinite(*out.log_prob);
}

}  // namespace

int64_t HeadSize(const PolicyMetadata& metadata) {
  switch (metadata.distribution) {
    case Distribution::kSquashedGaussian:
      return 2 * metadata.action_size;
    case Distribution::kGaussian:
      return metadata.action_size;
    case Distribution::kCategorical:
      return std::accumulate(metadata.num_choices.begin(), metadata.num_choices.end(), int64_t{0});
  }
  return 0;
}

double ToNativeUnits(const PolicyMetadata& metadata, double action, int64_t i) {
  const double low = metadata.action_low[i], high = metadata.action_high[i];
  return low + 0.5 * (action + 1) * (high - low);
}

bool DrawAction(const PolicyMetadata& metadata, const float* head, const float* log_std,
                std::mt19937_64& random, const DrawnAction& out) {
  switch (metadata.distribution) {
    case Distribution::kSquashedGaussian:
      return DrawGaussian(metadata, head, head + metadata.action_size, random, out);
    case Distribution::kGaussian:
      return DrawGaussian(metadata, head, log_std, random, out);
    case Distribution::kCategorical:
      return DrawChoices(metadata, head, random, out);
  }
  return false;
}

bool ModeAction(const PolicyMetadata& metadata, const float* head, absl::Span<float> env) {
  if (metadata.distribution == Distribution::kCategorical) {
    return ForEachChoice(metadata, head, [&](int64_t i, absl::Span<const float> logits) {
      env[i] = static_cast<float>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    });
  }
  for (int64_t i = 0; i < metadata.action_size; ++i) {
    if (std::isnan(head[i])) return false;
    env[i] = static_cast<float>(ForEnvironment(metadata, head[i], i));
  }
  return true;
}

void DrawUniform(const PolicyMetadata& metadata, std::mt19937_64& random, absl::Span<float> env) {
  for (int64_t i = 0; i < metadata.action_size; ++i) {
    if (metadata.distribution == Distribution::kCategorical) {
      std::uniform_int_distribution<int64_t> choice(0, metadata.num_choices[i] - 1);
      env[i] = static_cast<float>(choice(random));
    } else {
      std::uniform_real_distribution<double> uniform(-1, 1);
      env[i] = static_cast<float>(Bounded(metadata, uniform(random), i));
    }
  }
}

}  // namespace troupe
