#include "actor/row_packer.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

proto::Column* AddColumn(absl::string_view name, proto::DType dtype, proto::Layout* layout) {
  proto::Column* column = layout->add_columns();
  column->set_name(std::string(name));
  column->set_dtype(dtype);
  return column;
}

void AddColumns(const std::vector<ObservationColumn>& columns, proto::DType dtype,
                proto::Layout* layout) {
  for (const ObservationColumn& column : columns) {
    proto::Column* added = AddColumn(column.name, dtype, layout);
    for (const int64_t axis : column.shape) added->add_shape(static_cast<uint32_t>(axis));
  }
}

// Where the first column of observations of this type begins; 0: there is none.
int64_t FirstObservation(const Layout& layout, proto::DType dtype) {
  for (const ColumnLayout& column : layout.columns()) {
    if (column.name != kObservation && !absl::StartsWith(column.name, kObservationPrefix)) continue;
    if (column.dtype == dtype) return column.offset_bytes;
  }
  return 0;
}

template <typename T>
void Copy(absl::Span<const T> values, int64_t offset, absl::Span<char> row) {
  std::memcpy(row.data() + offset, values.data(), values.size() * sizeof(T));
}

}  // namespace

proto::Layout MakeLayout(const EnvSpec& spec, bool with_log_prob, int64_t state_size) {
  proto::Layout layout;
  layout.set_environment(spec.id);
  if (spec.columns.empty() && spec.images.empty()) {
    AddColumn(kObservation, proto::FLOAT32, &layout)
        ->add_shape(static_cast<uint32_t>(spec.observation_size));
  }
  AddColumns(spec.columns, proto::FLOAT32, &layout);
  AddColumns(spec.images, proto::UINT8, &layout);
  const bool discrete = !spec.num_choices.empty();
  proto::Column* action = AddColumn(kAction, discrete ? proto::INT32 : proto::FLOAT32, &layout);
  action->add_shape(static_cast<uint32_t>(spec.action_size));
  if (discrete) {
    for (const int64_t n : spec.num_choices) action->add_num_choices(static_cast<uint32_t>(n));
  } else {
    action->mutable_low()->Assign(spec.action_low.begin(), spec.action_low.end());
    action->mutable_high()->Assign(spec.action_high.begin(), spec.action_high.end());
  }
  AddColumn(kReward, proto::FLOAT32, &layout);
  if (with_log_prob) AddColumn(kLogProb, proto::FLOAT32, &layout);
  if (state_size > 0) {
    AddColumn(kRecurrentState, proto::FLOAT32, &layout)
        ->add_shape(static_cast<uint32_t>(state_size));
  }
  return layout;
}

absl::StatusOr<RowPacker> RowPacker::Create(const Layout& layout) {
  absl::StatusOr<ColumnLayout> action = layout.Find(kAction);
  if (!action.ok()) return action.status();
  absl::StatusOr<ColumnLayout> reward = layout.Find(kReward);
  if (!reward.ok()) return reward.status();
  RowPacker packer;
  packer.observation_offset_ = FirstObservation(layout, proto::FLOAT32);
  packer.images_offset_ = FirstObservation(layout, proto::UINT8);
  if (packer.observation_offset_ + packer.images_offset_ == 0) {
    return absl::NotFoundError("no column of observations");
  }
  packer.action_offset_ = action->offset_bytes;
  packer.reward_offset_ = reward->offset_bytes;
  if (const auto log_prob = layout.Find(kLogProb); log_prob.ok()) {
    packer.log_prob_offset_ = log_prob->offset_bytes;
  }
  if (const auto state = layout.Find(kRecurrentState); state.ok()) {
    packer.recurrent_state_offset_ = state->offset_bytes;
    packer.recurrent_state_size_ = state->num_elements;
  }
  packer.discrete_ = action->dtype == proto::INT32;
  return packer;
}

void RowPacker::PackStep(const PackedStep& step, absl::Span<char> row) const {
  WriteRowHeader({.policy_version = step.policy_version}, row.data());
  Copy(step.observation, observation_offset_, row);
  Copy(step.images, images_offset_, row);
  if (discrete_) {
    const std::vector<int32_t> choices(step.action.begin(), step.action.end());
    Copy(absl::MakeConstSpan(choices), action_offset_, row);
  } else {
    Copy(step.action, action_offset_, row);
  }
  Copy(absl::MakeConstSpan(&step.reward, 1), reward_offset_, row);
  if (log_prob_offset_ >= 0) Copy(absl::MakeConstSpan(&step.log_prob, 1), log_prob_offset_, row);
  if (recurrent_state_offset_ >= 0) Copy(step.recurrent_state, recurrent_state_offset_, row);
}

void RowPacker::PackFinal(const PackedFinal& last, absl::Span<char> row) const {
  WriteRowHeader({.policy_version = last.policy_version, .flags = last.flags}, row.data());
  Copy(last.observation, observation_offset_, row);
  Copy(last.images, images_offset_, row);
  if (recurrent_state_offset_ >= 0) Copy(last.recurrent_state, recurrent_state_offset_, row);
}

}  // namespace troupe
