#include "actor/row_packer.h"

#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace troupe {
namespace {

proto::Column* AddColumn(absl::string_view name, proto::DType dtype, proto::Layout* layout) {
  proto::Column* column = layout->add_columns();
  column->set_name(std::string(name));
  column->set_dtype(dtype);
  return column;
}

template <typename T>
void Copy(absl::Span<const T> values, int64_t offset, absl::Span<char> row) {
  std::memcpy(row.data() + offset, values.data(), values.size() * sizeof(T));
}

}  // namespace

proto::Layout MakeLayout(const EnvSpec& spec) {
  proto::Layout layout;
  layout.set_environment(spec.id);
  AddColumn(kObservation, proto::FLOAT32, &layout)
      ->add_shape(static_cast<uint32_t>(spec.observation_size));
  if (spec.num_choices > 0) {
    AddColumn(kAction, proto::INT32, &layout)
        ->set_num_choices(static_cast<uint32_t>(spec.num_choices));
  } else {
    proto::Column* action = AddColumn(kAction, proto::FLOAT32, &layout);
    action->add_shape(static_cast<uint32_t>(spec.action_size));
    action->mutable_low()->Assign(spec.action_low.begin(), spec.action_low.end());
    action->mutable_high()->Assign(spec.action_high.begin(), spec.action_high.end());
  }
  AddColumn(kReward, proto::FLOAT32, &layout);
  return layout;
}

absl::StatusOr<RowPacker> RowPacker::Create(const Layout& layout) {
  absl::StatusOr<ColumnLayout> observation = layout.Find(kObservation);
  if (!observation.ok()) return observation.status();
  absl::StatusOr<ColumnLayout> action = layout.Find(kAction);
  if (!action.ok()) return action.status();
  absl::StatusOr<ColumnLayout> reward = layout.Find(kReward);
  if (!reward.ok()) return reward.status();
  RowPacker packer;
  packer.observation_offset_ = observation->offset_bytes;
  packer.action_offset_ = action->offset_bytes;
  packer.reward_offset_ = reward->offset_bytes;
  packer.discrete_ = action->dtype == proto::INT32;
  return packer;
}

void RowPacker::PackStep(uint64_t policy_version, absl::Span<const float> observation,
                         absl::Span<const float> action, float reward, absl::Span<char> row) const {
  WriteRowHeader({.policy_version = policy_version}, row.data());
  Copy(observation, observation_offset_, row);
  if (discrete_) {
    const int32_t choice = static_cast<int32_t>(action[0]);
    Copy(absl::MakeConstSpan(&choice, 1), action_offset_, row);
  } else {
    Copy(action, action_offset_, row);
  }
  Copy(absl::MakeConstSpan(&reward, 1), reward_offset_, row);
}

void RowPacker::PackFinal(uint64_t policy_version, absl::Span<const float> observation,
                          bool terminated, bool truncated, absl::Span<char> row) const {
  const uint32_t flags = (terminated ? kTerminated : 0u) | (truncated ? kTruncated : 0u);
  WriteRowHeader({.policy_version = policy_version, .flags = flags}, row.data());
  Copy(observation, observation_offset_, row);
}

}  // namespace troupe
