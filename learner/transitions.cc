#include "learner/transitions.h"

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "learner/columns.h"

namespace troupe {

using torch::Tensor;

absl::StatusOr<TransitionReader> TransitionReader::Create(const Layout& layout,
                                                          const Options& options) {
  TransitionReader reader;
  reader.options_ = options;
  reader.stride_bytes_ = layout.stride_bytes();
  absl::StatusOr<ColumnLayout> observation = FindColumn(layout, kObservation, proto::FLOAT32);
  if (!observation.ok()) return observation.status();
  absl::StatusOr<ColumnLayout> action = FindColumn(layout, kAction, proto::FLOAT32);
  if (!action.ok()) return action.status();
  absl::StatusOr<ColumnLayout> reward = FindScalar(layout, kReward, proto::FLOAT32);
  if (!reward.ok()) return reward.status();
  reader.observation_ = *std::move(observation);
  reader.action_ = *std::move(action);
  reader.reward_ = *std::move(reward);
  reader.action_column_ = *FindProto(layout, kAction);
  absl::StatusOr<ActionRange> range =
      RangeOf(reader.action_column_, reader.action_size(), options.tensors);
  if (!range.ok()) return range.status();
  reader.action_center_ = range->center;
  reader.action_scale_ = range->scale;
  std::vector<double> discounts;
  for (int64_t i = 0; i < options.n_step; ++i) discounts.push_back(std::pow(options.gamma, i));
  reader.discounts_ = torch::tensor(discounts, torch::kFloat64).to(options.tensors);
  return reader;
}

Transitions TransitionReader::Read(const uint8_t* windows, int64_t num_windows) const {
  const int64_t n = options_.n_step;
  const torch::Device device = options_.tensors.device();
  // The rows as words, [B, n + 1, words of a row]; the columns are strided views of them.
  const Tensor words =
      torch::from_blob(const_cast<uint8_t*>(windows),
                       {num_windows, n + 1, stride_bytes_ / kWordBytes}, torch::kFloat32)
          .to(device);
  const auto column = [&](const ColumnLayout& c) {
    return words.narrow(2, c.offset_bytes / kWordBytes, c.num_elements).to(options_.tensors);
  };
  const Tensor observations = column(observation_);  // [B, n + 1, observation_size]
  const Tensor rewards = column(reward_).squeeze(2).narrow(1, 0, n);  // [B, n]
  const Tensor flags = words.view(torch::kInt32).select(2, offsetof(RowHeader, flags) / kWordBytes);

  Transitions b;
  b.s = observations.select(1, 0);
  b.a = (column(action_).select(1, 0) - action_center_) * action_scale_;
  const Tensor ends = flags.narrow(1, 1, n);  // of rows 1 .. n
  const Tensor terminated = ends.bitwise_and(int64_t{kTerminated}).to(options_.tensors);
  if (n == 1) {
    b.r = rewards.select(1, 0);
    b.gamma = discounts_.new_full({num_windows}, options_.gamma);
    b.d = terminated.select(1, 0);
    b.s_next = observations.select(1, 1);
    return b;
  }
  // goes_on[i]: none of the rows 1 .. i is final, so step i still belongs to the episode.
  const Tensor is_final = ends.bitwise_and(int64_t{kFinalFlags}).ne(0).to(options_.tensors);
  const Tensor goes_on = torch::cat(
      {torch::ones_like(b.a.narrow(1, 0, 1)), (1 - is_final.narrow(1, 0, n - 1)).cumprod(1)},
      1);  // [B, n]
  b.r = (goes_on * rewards).mv(discounts_);
  const Tensor k = goes_on.sum(1).to(torch::kInt64);  // steps, 1 .. n
  b.gamma = torch::pow(options_.gamma, k).to(options_.tensors);
  b.d = terminated.gather(1, (k - 1).unsqueeze(1)).squeeze(1);
  b.s_next = observations.index({torch::arange(num_windows, k.options()), k});
  return b;
}

}  // namespace troupe
