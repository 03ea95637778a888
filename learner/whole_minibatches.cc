#include "learner/whole_minibatches.h"

#include <cmath>

#include "learner/ppo_gradient.h"

namespace troupe {
namespace {

absl::Status SumOverRanks(std::vector<double>& values, RankGroup* ranks) {
  return ranks == nullptr ? absl::OkStatus() : ranks->Sum(absl::MakeSpan(values));
}

}  // namespace

absl::StatusOr<std::vector<WholeMinibatch>> LookAtMinibatches(const proto::Ppo& config,
                                                              absl::Span<const float> advantages,
                                                              absl::Span<const int64_t> sizes,
                                                              RankGroup* ranks) {
  const size_t count = sizes.size();
  std::vector<double> sums(2 * count), squares(count);  // sums: advantages', then steps'
  const float* advantage = advantages.data();
  for (size_t i = 0; i < count; ++i) {
    sums[count + i] = static_cast<double>(sizes[i]);
    for (int64_t step = 0; step < sizes[i]; ++step) sums[i] += *advantage++;
  }
  if (absl::Status status = SumOverRanks(sums, ranks); !status.ok()) return status;
  advantage = advantages.data();
  for (size_t i = 0; i < count; ++i) {
    const double mean = sums[i] / sums[count + i];
    for (int64_t step = 0; step < sizes[i]; ++step, ++advantage) {
      squares[i] += (*advantage - mean) * (*advantage - mean);
    }
  }
  if (absl::Status status = SumOverRanks(squares, ranks); !status.ok()) return status;
  std::vector<WholeMinibatch> wholes(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t n = std::llround(sums[count + i]);
    wholes[i] = {n, ScaleOf(config, n, sums[i], squares[i])};
  }
  return wholes;
}

}  // namespace troupe
