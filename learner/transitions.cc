#include "learner/transitions.h"

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/columns.h"
#include "learner/frame_stacks.h"

namespace troupe {

using torch::Tensor;

absl::StatusOr<TransitionReader> TransitionReader::Create(const Layout& layout,
                                                          const Options& options) {
  TransitionReader reader;
  reader.options_ = options;
  const proto::Recurrence& recurrence = options.recurrence;
  reader.window_length_ = options.frame_stack - 1 + options.n_step + 1;
  if (HasMemory(recurrence)) {
    reader.window_length_ = recurrence.burn_in() + recurrence.sequence_length() + options.n_step;
    auto state = FindRecurrentState(layout, StateSize(recurrence));
    if (!state.ok()) return state.status();
    reader.recurrent_state_ = *std::move(state);
  }
  reader.stride_bytes_ = layout.stride_bytes();
  absl::Status observed = reader.FindObservations(layout);
  if (!observed.ok()) return observed;
  absl::StatusOr<ColumnLayout> action = FindColumn(layout, kAction, proto::FLOAT32);
  if (!action.ok()) return action.status();
  absl::StatusOr<ColumnLayout> reward = FindScalar(layout, kReward, proto::FLOAT32);
  if (!reward.ok()) return reward.status();
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

absl::Status TransitionReader::FindObservations(const Layout& layout) {
  const absl::StatusOr<ObservationColumns> columns = layout.Observations();
  if (!columns.ok()) return columns.status();
  observation_ = VectorOf(*columns);
  image_ = columns->image;
  if (image_.num_elements > 0 && HasMemory(options_.recurrence)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "column '", image_.name, "' is an image, and SAC with recurrence does not learn from any"));
  }
  return CheckHasImage(*columns, options_.has_encoder);
}

Tensor TransitionReader::Column(const Tensor& words, const ColumnLayout& column) const {
  return words.narrow(2, column.offset_bytes / kWordBytes, column.num_elements)
      .to(options_.tensors);
}

Tensor TransitionReader::Flags(const Tensor& words) {
  return words.view(torch::kInt32).select(2, offsetof(RowHeader, flags) / kWordBytes);
}

Transitions TransitionReader::Read(const uint8_t* windows, int64_t num_windows) const {
  const Tensor words =
      torch::from_blob(const_cast<uint8_t*>(windows),
                       {num_windows, window_length_, stride_bytes_ / kWordBytes}, torch::kFloat32)
          .to(options_.tensors.device());
  if (image_.num_elements > 0) return ReadStacks(words);
  return HasMemory(options_.recurrence) ? ReadSequences(words) : ReadWindows(words, nullptr);
}

Transitions TransitionReader::ReadWindows(const Tensor& words, Tensor* steps) const {
  const int64_t n = options_.n_step, num_windows = words.size(0);
  const Tensor observations = Column(words, observation_);  // [B, n + 1, observation_size]
  const Tensor rewards = Column(words, reward_).squeeze(2).narrow(1, 0, n);  // [B, n]

  Transitions b;
  b.s = observations.select(1, 0);
  b.a = (Column(words, action_).select(1, 0) - action_center_) * action_scale_;
  const Tensor ends = Flags(words).narrow(1, 1, n);  // of rows 1 .. n
  const Tensor terminated = ends.bitwise_and(int64_t{kTerminated}).to(options_.tensors);
  if (n == 1) {
    b.r = rewards.select(1, 0);
    b.gamma = discounts_.new_full({num_windows}, options_.gamma);
    b.d = terminated.select(1, 0);
    b.s_next = observations.select(1, 1);
    if (steps != nullptr) *steps = torch::ones({num_windows}, ends.options().dtype(torch::kInt64));
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
  if (steps != nullptr) *steps = k;
  return b;
}

Transitions TransitionReader::ReadStacks(const Tensor& words) const {
  const int64_t lead = options_.frame_stack - 1;
  Tensor steps;
  Transitions b = ReadWindows(words.narrow(1, lead, options_.n_step + 1), &steps);
  const Tensor flags = Flags(words);
  const Tensor stacks = StackedRows(flags, options_.frame_stack);  // [B, W, frame_stack]
  b.images = TransitionImages{
      .frames = FramesOf(words, image_),
      .now = stacks.select(1, lead),
      .next = stacks.index({torch::arange(words.size(0), steps.options()), lead + steps})};
  if (lead > 0) {
    b.weight = flags.select(1, lead).bitwise_and(int64_t{kFinalFlags}).eq(0).to(options_.tensors);
  }
  return b;
}

Transitions TransitionReader::ReadSequences(const Tensor& words) const {
  const int64_t n = options_.n_step, burn_in = options_.recurrence.burn_in(),
                length = options_.recurrence.sequence_length();
  const Tensor is_final = Flags(words).bitwise_and(int64_t{kFinalFlags}).ne(0);  // [B, W]
  // Rows that begin a transition, counted over the sequences; and those sequences.
  const Tensor begin =
      is_final.narrow(1, burn_in, length).logical_not().flatten().nonzero().squeeze(1);
  const Tensor sequence = begin.div(length, "floor");
  const Tensor first = begin + sequence * (burn_in + n) + burn_in;  // counted over all rows
  const Tensor rows = first.unsqueeze(1) + torch::arange(n + 1, first.options());
  const Tensor windows =
      words.flatten(0, 1).index_select(0, rows.flatten()).view({-1, n + 1, words.size(2)});

  Tensor steps;
  Transitions b = ReadWindows(windows, &steps);
  const Tensor now = begin + sequence * n;
  b.rows =
      TransitionRows{.in_order = {.x = Column(words, observation_),
                                  .stored = Column(words, recurrent_state_),
                                  .fresh = torch::cat({torch::ones_like(is_final.narrow(1, 0, 1)),
                                                       is_final.narrow(1, 0, window_length_ - 1)},
                                                      1),
                                  .burn_in = burn_in},
                     .now = now,
                     .next = now + steps};
  return b;
}

}  // namespace troupe
