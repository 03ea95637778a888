#ifndef TROUPE_TESTS_UNIT_LEARNER_PPO_ROWS_H_
#define TROUPE_TESTS_UNIT_LEARNER_PPO_ROWS_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/layout.h"
#include "common/window_batch.h"

namespace troupe {

struct PpoRow {
  std::vector<float> observation;
  std::vector<float> action;     // continuous
  std::vector<int32_t> choices;  // discrete
  float reward = 0;
  float log_prob = 0;
  uint32_t flags = 0;
  std::vector<float> memory;  // of a policy with a memory, before the observation
};

inline proto::Column* AddColumn(absl::string_view name, proto::DType dtype, size_t elements,
                                proto::Layout& layout) {
  proto::Column* column = layout.add_columns();
  column->set_name(std::string(name));
  column->set_dtype(dtype);
  if (elements > 0) column->add_shape(static_cast<uint32_t>(elements));
  return column;
}

inline Layout ContinuousLayout(int observation_size, const std::vector<double>& low,
                               const std::vector<double>& high) {
  proto::Layout layout;
  AddColumn(kObservation, proto::FLOAT32, observation_size, layout);
  proto::Column* action = AddColumn(kAction, proto::FLOAT32, low.size(), layout);
  action->mutable_low()->Assign(low.begin(), low.end());
  action->mutable_high()->Assign(high.begin(), high.end());
  AddColumn(kReward, proto::FLOAT32, 0, layout);
  AddColumn(kLogProb, proto::FLOAT32, 0, layout);
  return *Layout::FromProto(layout);
}

inline Layout DiscreteLayout(int observation_size, const std::vector<uint32_t>& num_choices) {
  proto::Layout layout;
  AddColumn(kObservation, proto::FLOAT32, observation_size, layout);
  AddColumn(kAction, proto::INT32, num_choices.size(), layout)
      ->mutable_num_choices()
      ->Assign(num_choices.begin(), num_choices.end());
  AddColumn(kReward, proto::FLOAT32, 0, layout);
  AddColumn(kLogProb, proto::FLOAT32, 0, layout);
  return *Layout::FromProto(layout);
}

// The rows packed one after another.
inline std::vector<uint8_t> PackRows(const Layout& layout, const std::vector<PpoRow>& rows) {
  std::vector<uint8_t> bytes(rows.size() * layout.stride_bytes());
  for (size_t i = 0; i < rows.size(); ++i) {
    uint8_t* const row = bytes.data() + i * layout.stride_bytes();
    WriteRowHeader({.policy_version = 1, .flags = rows[i].flags}, row);
    const auto put = [&](absl::string_view column, const auto& values) {
      std::memcpy(row + layout.Find(column)->offset_bytes, values.data(),
                  values.size() * sizeof(values[0]));
    };
    put(kObservation, rows[i].observation);
    put(kAction, rows[i].action);
    put(kAction, rows[i].choices);
    put(kReward, std::vector<float>{rows[i].reward});
    put(kLogProb, std::vector<float>{rows[i].log_prob});
    if (!rows[i].memory.empty()) put(kRecurrentState, rows[i].memory);
  }
  return bytes;
}

// The rows as a batch of `num_windows` windows of equal length.
inline WindowBatch ToBatch(const Layout& layout, const std::vector<PpoRow>& rows,
                           int64_t num_windows) {
  const std::vector<uint8_t> bytes = PackRows(layout, rows);
  const auto length = static_cast<int64_t>(rows.size()) / num_windows;
  WindowBatch batch =
      std::make_shared<BatchPool>(num_windows, length, layout.stride_bytes())->Take();
  std::memcpy(batch.buffer->data, bytes.data(), bytes.size());
  return batch;
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_LEARNER_PPO_ROWS_H_
