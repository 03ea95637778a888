#ifndef TROUPE_TESTS_UNIT_LEARNER_ROWS_H_
#define TROUPE_TESTS_UNIT_LEARNER_ROWS_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/layout.h"

namespace troupe {

struct Row {
  std::vector<float> observation;
  std::vector<float> action;
  float reward = 0;
  uint32_t flags = 0;
};

inline Layout MakeLayout(int observation_size, std::vector<double> low, std::vector<double> high) {
  proto::Layout layout;
  proto::Column* column = layout.add_columns();
  column->set_name("observation");
  column->set_dtype(proto::FLOAT32);
  column->add_shape(observation_size);
  column = layout.add_columns();
  column->set_name("action");
  column->set_dtype(proto::FLOAT32);
  column->add_shape(low.size());
  column->mutable_low()->Assign(low.begin(), low.end());
  column->mutable_high()->Assign(high.begin(), high.end());
  column = layout.add_columns();
  column->set_name("reward");
  column->set_dtype(proto::FLOAT32);
  return Layout::FromProto(layout).value();
}

// The rows packed one after another.
inline std::vector<uint8_t> Pack(const Layout& layout, const std::vector<Row>& rows) {
  std::vector<uint8_t> bytes(rows.size() * layout.stride_bytes());
  for (size_t i = 0; i < rows.size(); ++i) {
    uint8_t* const row = bytes.data() + i * layout.stride_bytes();
    WriteRowHeader({.policy_version = 1, .flags = rows[i].flags}, row);
    const auto put = [&](absl::string_view column, const float* values) {
      const ColumnLayout where = layout.Find(column).value();
      std::memcpy(row + where.offset_bytes, values, where.size_bytes);
    };
    put(kObservation, rows[i].observation.data());
    put(kAction, rows[i].action.data());
    put(kReward, &rows[i].reward);
  }
  return bytes;
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_LEARNER_ROWS_H_
