#include "learner/unrolls.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/frame_stack.h"
#include "learner/columns.h"
#include "learner/frame_stacks.h"

namespace troupe {

using torch::Tensor;

absl::Status UnrollReader::FindObservations(const Layout& layout) {
  const absl::StatusOr<ObservationColumns> columns = layout.Observations();
  if (!columns.ok()) return columns.status();
  observation_ = VectorOf(*columns);
  image_ = columns->image;
  if (image_.num_elements > 0 && options_.state_size > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "column '", image_.name, "' is an image, and PPO with recurrence does not learn from any"));
  }
  return CheckHasImage(*columns, options_.has_encoder);
}

absl::StatusOr<UnrollReader> UnrollReader::Create(const Layout& layout, const Options& options) {
  UnrollReader reader(options);
  reader.stride_bytes_ = layout.stride_bytes();
  if (absl::Status status = reader.FindObservations(layout); !status.ok()) return status;
  const proto::Column* action = FindProto(layout, kAction);
  if (action != nullptr) reader.action_column_ = *action;
  const std::pair<absl::string_view, ColumnLayout*> wanted[] = {
      {kAction, &reader.action_}, {kReward, &reader.reward_}, {kLogProb, &reader.log_prob_}};
  for (const auto& [name, column] : wanted) {
    const bool is_choice = name == kAction && reader.discrete();
    absl::StatusOr<ColumnLayout> found =
        name == kReward || name == kLogProb
            ? FindScalar(layout, name, proto::FLOAT32)
            : FindColumn(layout, name, is_choice ? proto::INT32 : proto::FLOAT32);
    if (!found.ok()) return found.status();
    *column = *std::move(found);
  }
  if (options.state_size > 0) {
    absl::StatusOr<ColumnLayout> memory = FindRecurrentState(layout, options.state_size);
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
  const int64_t lead = image_.num_elements > 0 ? UnrollLeadRows(options_.frame_stack) : 0;
  const int64_t length = window_length - lead - 1;
  // The rows as words, [B, T + 1, words of a row]; the columns are strided views of them.
  const Tensor all_words =
      torch::from_blob(const_cast<uint8_t*>(windows),
                       {num_windows, window_length, stride_bytes_ / kWordBytes}, torch::kFloat32);
  const Tensor words = all_words.narrow(1, lead, length + 1);
  const Tensor whole_numbers = words.view(torch::kInt32);
  const auto column = [&](const Tensor& of, const ColumnLayout& c) {
    return of.narrow(2, c.offset_bytes / kWordBytes, c.num_elements);
  };
  const auto flags_of = [](const Tensor& rows) {
    return rows.view(torch::kInt32).select(2, offsetof(RowHeader, flags) / kWordBytes);
  };
  const Tensor flags = flags_of(words);
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
  if (image_.num_elements > 0) {
    b.frames = FramesOf(all_words, image_).contiguous();
    b.stacks = StackedRows(flags_of(all_words), options_.frame_stack).narrow(1, lead, length + 1);
  }
  return b;
}

}  // namespace troupe
