#include "learner/unrolls.h"

#include <cstddef>
#include <utility>

#include "learner/columns.h"

namespace troupe {

using torch::Tensor;

absl::StatusOr<UnrollReader> UnrollReader::Create(const Layout& layout, int64_t state_size) {
  UnrollReader reader;
  reader.stride_bytes_ = layout.stride_bytes();
  const proto::Column* action = FindProto(layout, kAction);
  if (action != nullptr) reader.action_column_ = *action;
  const std::pair<absl::string_view, ColumnLayout*> wanted[] = {
      {kObservation, &reader.observation_},
      {kAction, &reader.action_},
      {kReward, &reader.reward_},
      {kLogProb, &reader.log_prob_}};
  for (const auto& [name, column] : wanted) {
    const bool is_choice = name == kAction && reader.discrete();
    absl::StatusOr<ColumnLayout> found =
        name == kReward || name == kLogProb
            ? FindScalar(layout, name, proto::FLOAT32)
            : FindColumn(layout, name, is_choice ? proto::INT32 : proto::FLOAT32);
    if (!found.ok()) return found.status();
    *column = *std::move(found);
  }
  if (state_size > 0) {
    absl::StatusOr<ColumnLayout> memory = FindRecurrentState(layout, state_size);
    if (!memory.ok()) return memory.status();
    reader.memory_ = *std::move(memory);
  }
  if (reader.discrete()) {
    if (reader.action_column_.num_choices_size() != reader.action_size()) {
      return absl::InvalidArgumentError("column 'action' has not a num_choices for each element");
    }
    return reader;
  }
  absl::StatusOr<ActionRange> range =
      RangeOf(reader.action_column_, reader.action_size(), torch::kFloat32);
  if (!range.ok()) return range.status();
  reader.action_center_ = range->center;
  reader.action_scale_ = range->scale;
  return reader;
}

Unrolls UnrollReader::Read(const uint8_t* windows, int64_t num_windows,
                           int64_t window_length) const {
  const int64_t length = window_length - 1;
  // The rows as words, [B, T + 1, words of a row]; the columns are strided views of them.
  const Tensor words =
      torch::from_blob(const_cast<uint8_t*>(windows),
                       {num_windows, window_length, stride_bytes_ / kWordBytes}, torch::kFloat32);
  const Tensor whole_numbers = words.view(torch::kInt32);
  const auto column = [&](const Tensor& of, const ColumnLayout& c) {
    return of.narrow(2, c.offset_bytes / kWordBytes, c.num_elements);
  };
  const Tensor flags = whole_numbers.select(2, offsetof(RowHeader, flags) / kWordBytes);
  const Tensor is_final = flags.bitwise_and(int64_t{kFinalFlags}).ne(0);
  const Tensor next_flags = flags.narrow(1, 1, length);

  Unrolls b;
  b.s = column(words, observation_).contiguous();
  if (discrete()) {
    b.a = column(whole_numbers, action_).narrow(1, 0, length).to(torch::kInt64);
  } else {
    b.a = (column(words, action_).narrow(1, 0, length) - action_center_) * action_scale_;
  }
  b.log_mu = column(words, log_prob_).narrow(1, 0, length).squeeze(2).contiguous();
  b.r = column(words, reward_).narrow(1, 0, length).squeeze(2).contiguous();
  b.is_step = is_final.narrow(1, 0, length).logical_not();
  b.terminated = next_flags.bitwise_and(int64_t{kTerminated}).ne(0);
  b.goes_on = is_final.narrow(1, 1, length).logical_not();
  if (memory_) {
    b.memory = column(words, *memory_).contiguous();
    b.fresh =
        torch::cat({torch::ones_like(is_final.narrow(1, 0, 1)), is_final.narrow(1, 0, length)}, 1);
  }
  return b;
}

}  // namespace troupe
