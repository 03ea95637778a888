#ifndef TROUPE_TESTS_UNIT_LEARNER_MOVING_DOT_H_
#define TROUPE_TESTS_UNIT_LEARNER_MOVING_DOT_H_

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "common/layout.h"
#include "common/window_batch.h"

namespace troupe {

inline constexpr int64_t kDotFrames = 3;  // that a policy sees at once
inline constexpr int64_t kDotSide = 9;
inline constexpr int64_t kDotBytes = kDotSide * kDotSide;

struct PixelRow {
  std::vector<uint8_t> frame;
  float action = 0;    // continuous
  int32_t choice = 0;  // discrete
  float reward = 0;
  float log_prob = 0;
  uint32_t flags = 0;
};

// What a policy says of a stack of frames.
struct DotAction {
  float action = 0;
  int32_t choice = 0;
  float log_prob = 0;
};
using DotPolicy = std::function<DotAction(const std::vector<uint8_t>& stack)>;

inline Layout DotLayout(bool discrete) {
  proto::Layout layout;
  const auto add = [&](absl::string_view name, proto::DType dtype,
                       std::initializer_list<uint32_t> shape) {
    proto::Column* column = layout.add_columns();
    column->set_name(std::string(name));
    column->set_dtype(dtype);
    column->mutable_shape()->Assign(shape.begin(), shape.end());
    return column;
  };
  add("observation", proto::UINT8, {kDotSide, kDotSide, 1});
  proto::Column* action = add(kAction, discrete ? proto::INT32 : proto::FLOAT32, {1});
  if (discrete) {
    action->add_num_choices(2);
  } else {
    action->add_low(-1);
    action->add_high(1);
  }
  add(kReward, proto::FLOAT32, {});
  add(kLogProb, proto::FLOAT32, {});
  return Layout::FromProto(layout).value();
}

// A dot that goes left or right, whatever is done: an action is right that says where it went last,
// which one frame does not show.  Episodes are of random length and end in either way.
class MovingDot final {
 public:
  explicit MovingDot(uint64_t seed) : random_(seed) { Reset(); }

  // The next row; a final row after an episode's last step.
  PixelRow Next(const DotPolicy& policy) {
    PixelRow row{.frame = Frame()};
    if (left_ == 0) {
      row.flags = random_() % 2 == 0 ? kTerminated : kTruncated;
      Reset();
      return row;
    }
    const DotAction act = policy(Stack());
    row.action = act.action;
    row.choice = act.choice;
    row.log_prob = act.log_prob;
    const auto went = static_cast<float>(went_);
    row.reward = -(act.action - went) * (act.action - went) +
                 (went_ != 0 && (act.choice == 1) == (went_ > 0) ? 1.0f : 0.0f);
    Move();
    return row;
  }

  // The observation as a final row that an unroll is cut with.
  PixelRow Cut() const { return {.frame = Frame(), .flags = kCut}; }

 private:
  void Reset() {
    left_ = static_cast<int>(2 + random_() % 9);
    place_ = static_cast<int>(random_() % kDotSide);
    went_ = 0;
    stack_.assign(kDotFrames, Frame());
  }
  void Move() {
    --left_;
    went_ = random_() % 2 == 0 ? -1 : 1;
    place_ = static_cast<int>((place_ + went_ + kDotSide) % kDotSide);
    stack_.pop_front();
    stack_.push_back(Frame());
  }
  std::vector<uint8_t> Frame() const {
    std::vector<uint8_t> frame(kDotBytes);
    for (int64_t y = 3; y < 6; ++y) frame[y * kDotSide + place_] = 255;
    return frame;
  }
  std::vector<uint8_t> Stack() const {
    std::vector<uint8_t> bytes;
    for (const auto& frame : stack_) bytes.insert(bytes.end(), frame.begin(), frame.end());
    return bytes;
  }

  std::mt19937_64 random_;
  int left_ = 0, place_ = 0, went_ = 0;
  std::deque<std::vector<uint8_t>> stack_;
};

// `length` of the rows from `begin` on, into window `window` of `batch`.
inline void PackWindow(const Layout& layout, const std::vector<PixelRow>& rows, int64_t begin,
                       int64_t window, WindowBatch& batch) {
  for (int64_t i = 0; i < batch.window_length; ++i) {
    const PixelRow& from = rows.at(begin + i);
    uint8_t* const row =
        batch.buffer->data + window * batch.window_bytes() + i * layout.stride_bytes();
    WriteRowHeader({.policy_version = 1, .flags = from.flags}, row);
    const auto put = [&](absl::string_view column, const void* value) {
      const ColumnLayout where = layout.Find(column).value();
      std::memcpy(row + where.offset_bytes, value, where.size_bytes);
    };
    put(kObservation, from.frame.data());
    if (layout.Find(kAction)->dtype == proto::INT32) {
      put(kAction, &from.choice);
    } else {
      put(kAction, &from.action);
    }
    put(kReward, &from.reward);
    put(kLogProb, &from.log_prob);
  }
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_LEARNER_MOVING_DOT_H_
