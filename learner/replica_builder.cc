#include "learner/replica_builder.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// Rows taken together: what is said of a row's age holds for the first of them.
constexpr uint64_t kRowsAtOnce = 64;
// Rows that are staged before they are written.
constexpr uint64_t kMaxStaged = 4096;

// Rows of an open window are copied when they are older than this; in rows.
uint64_t MaxAge(uint64_t capacity_rows) { return std::max<uint64_t>(capacity_rows / 16, 256); }
// So many rows are given up together.
uint64_t RowsPerMark(uint64_t capacity_rows) { return capacity_rows / 1024 + 1; }

}  // namespace

absl::StatusOr<ReplicaShape> ReplicaBuilder::ShapeFor(const Layout& layout,
                                                      const Options& options) {
  ReplicaBuilder columns(options, nullptr);
  if (absl::Status status = columns.FindColumns(layout); !status.ok()) return status;
  const uint64_t rows = options.capacity_rows;
  const uint64_t slots =
      rows + columns.longest_age() + RowsPerMark(rows) + kMaxStaged + kRowsAtOnce + options.n_step;
  if (rows > std::numeric_limits<uint32_t>::max() || slots > std::numeric_limits<uint32_t>::max()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a replica of ", rows, " rows: there can be at most 2^32 slots"));
  }
  return ReplicaShape{.capacity = static_cast<uint32_t>(slots),
                      .observation_size = columns.observation_.num_elements,
                      .action_size = columns.action_.num_elements};
}

absl::StatusOr<std::unique_ptr<ReplicaBuilder>> ReplicaBuilder::Create(const Layout& layout,
                                                                       const Options& options,
                                                                       ReplicaStore* store) {
  auto builder = absl::WrapUnique(new ReplicaBuilder(options, store));
  if (absl::Status status = builder->FindColumns(layout); !status.ok()) return status;
  return builder;
}

absl::Status ReplicaBuilder::FindColumns(const Layout& layout) {
  stride_bytes_ = layout.stride_bytes();
  const absl::StatusOr<ObservationColumns> observations = layout.Observations();
  if (!observations.ok()) return observations.status();
  if (observations->image.num_elements > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("column '", observations->image.name,
                     "' is an image, which a replica does not hold; learner.sampling must be "
                     "REMOTE"));
  }
  observation_ = VectorOf(*observations);
  absl::StatusOr<ColumnLayout> action = FindColumn(layout, kAction, proto::FLOAT32);
  if (!action.ok()) return action.status();
  action_ = *std::move(action);
  absl::StatusOr<ColumnLayout> reward = FindScalar(layout, kReward, proto::FLOAT32);
  if (!reward.ok()) return reward.status();
  reward_ = *std::move(reward);
  const absl::StatusOr<ActionScaling> scaling =
      ScalingOf(*FindProto(layout, kAction), action_.num_elements);
  if (!scaling.ok()) return scaling.status();
  action_center_.assign(scaling->center.begin(), scaling->center.end());
  action_scale_.assign(scaling->scale.begin(), scaling->scale.end());
  return absl::OkStatus();
}

uint64_t ReplicaBuilder::longest_age() const {
  return MaxAge(options_.capacity_rows) + kRowsAtOnce + options_.n_step;
}

uint64_t ReplicaBuilder::rows() const {
  return std::min<uint64_t>(next_number_, options_.capacity_rows);
}

absl::Status ReplicaBuilder::Add(uint64_t stream_id, uint64_t first_row, absl::string_view rows) {
  Stream& stream = streams_[stream_id];
  if (stream.steps.empty()) {
    stream.steps.resize(options_.n_step);
    stream.floats.resize(options_.n_step * store_->shape().row_floats());
  }
  const auto* packed = reinterpret_cast<const uint8_t*>(rows.data());
  uint64_t count = rows.size() / stride_bytes_;
  const uint64_t known = std::min(count, stream.next_row - std::min(stream.next_row, first_row));
  rows_duplicate_ += known;
  first_row += known;
  packed += known * stride_bytes_;
  count -= known;
  if (count > 0 && first_row != stream.next_row) {
    stream.held = 0;
    stream.next_row = first_row;
  }
  while (count > 0) {
    RenewRows(&stream);
    const uint64_t now = std::min(count, kRowsAtOnce);
    for (uint64_t i = 0; i < now; ++i, packed += stride_bytes_) AddRow(packed, &stream);
    count -= now;
    if (staged_rows_.size() < kMaxStaged * store_->shape().row_floats()) continue;
    if (absl::Status status = Flush(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

uint64_t ReplicaBuilder::TakeNumber() {
  if (marks_.empty() ||
      next_number_ - marks_.back().number >= RowsPerMark(options_.capacity_rows)) {
    marks_.push_back({.number = next_number_, .head = head_});
  }
  staged_rows_.resize(staged_rows_.size() + store_->shape().row_floats());
  return next_number_++;
}

void ReplicaBuilder::AddRow(const uint8_t* packed, Stream* stream) {
  const int64_t row_floats = store_->shape().row_floats();
  Step step = {.number = TakeNumber(), .flags = ReadRowHeader(packed).flags};
  std::memcpy(&step.reward, packed + reward_.offset_bytes, sizeof(step.reward));
  float* const floats = &staged_rows_[staged_rows_.size() - row_floats];
  ReadRow(packed, floats);
  if (stream->held == options_.n_step) Complete(*stream, step);
  const uint64_t place = stream->next_row % options_.n_step;
  std::copy_n(floats, row_floats, &stream->floats[place * row_floats]);
  stream->steps[place] = step;
  stream->newest_number = step.number;
  stream->held = std::min(stream->held + 1, options_.n_step);
  ++stream->next_row;
}

void ReplicaBuilder::ReadRow(const uint8_t* packed, float* to) const {
  std::memcpy(to, packed + observation_.offset_bytes, observation_.size_bytes);
  float* const action = to + observation_.num_elements;
  std::memcpy(action, packed + action_.offset_bytes, action_.size_bytes);
  for (int64_t i = 0; i < action_.num_elements; ++i) {
    action[i] = (action[i] - action_center_[i]) * action_scale_[i];
  }
}

// The window of n + 1 rows that ends with `last`, which comes behind the stream's n.
void ReplicaBuilder::Complete(const Stream& stream, const Step& last) {
  const uint64_t n = options_.n_step;
  const uint64_t start = stream.next_row - n;
  const Step& first = stream.steps[start % n];
  if (start % options_.window_stride != 0) return;
  if (IsFinal(first.flags) && !options_.start_at_final_rows) return;
  double reward = 0;
  double discount = 1;
  const Step* next = &first;
  for (uint64_t i = 1; i <= n; ++i) {
    reward += discount * next->reward;
    discount *= options_.gamma;
    next = i == n ? &last : &stream.steps[(start + i) % n];
    if (IsFinal(next->flags)) break;
  }
  const uint32_t capacity = store_->shape().capacity;
  const bool terminated = (next->flags & kTerminated) != 0;
  staged_transitions_.push_back({.state_slot = static_cast<uint32_t>(first.number % capacity),
                                 .next_slot = static_cast<uint32_t>(next->number % capacity),
                                 .reward = static_cast<float>(reward),
                                 .discount = terminated ? 0 : static_cast<float>(discount)});
  ++head_;
}

void ReplicaBuilder::RenewRows(Stream* stream) {
  if (stream->held == 0) return;
  const uint64_t n = options_.n_step;
  const uint64_t first = stream->next_row - stream->held;
  if (next_number_ - stream->steps[first % n].number <= MaxAge(options_.capacity_rows)) return;
  const int64_t row_floats = store_->shape().row_floats();
  for (uint64_t row = first; row < stream->next_row; ++row) {
    stream->steps[row % n].number = TakeNumber();
    std::copy_n(&stream->floats[row % n * row_floats], row_floats,
                &staged_rows_[staged_rows_.size() - row_floats]);
  }
  rows_copied_ += stream->held;
}

absl::Status ReplicaBuilder::WriteStagedRows() {
  const int64_t row_floats = store_->shape().row_floats();
  const uint32_t capacity = store_->shape().capacity;
  absl::Span<const float> rows = staged_rows_;
  uint64_t number = next_number_ - rows.size() / row_floats;
  while (!rows.empty()) {
    const auto slot = static_cast<uint32_t>(number % capacity);
    const uint64_t count = std::min<uint64_t>(rows.size() / row_floats, capacity - slot);
    absl::Status status = store_->WriteRows(slot, rows.subspan(0, count * row_floats));
    if (!status.ok()) return status;
    rows.remove_prefix(count * row_floats);
    number += count;
  }
  staged_rows_.clear();
  return absl::OkStatus();
}

absl::Status ReplicaBuilder::Flush() {
  if (staged_rows_.empty()) return absl::OkStatus();
  // The first rows of transitions that `kept` and later rows completed are still in the ring.
  const uint64_t in_ring = store_->shape().capacity - longest_age();
  const uint64_t kept = next_number_ > in_ring ? next_number_ - in_ring : 0;
  while (!marks_.empty() && marks_.front().number < kept) marks_.pop_front();
  const uint64_t tail = marks_.empty() ? head_ : marks_.front().head;
  absl::Status status;
  if (tail != std::exchange(tail_, tail)) {
    shown_head_ = std::max(shown_head_, tail);
    status = store_->SetRange(tail_, shown_head_);
  }
  if (status.ok()) status = WriteStagedRows();
  if (status.ok() && shown_head_ != head_) {
    const uint64_t first = head_ - staged_transitions_.size();
    status = store_->WriteTransitions(first, staged_transitions_);
    staged_transitions_.clear();
    shown_head_ = head_;
    if (status.ok()) status = store_->SetRange(tail_, head_);
  }
  ForgetOldStreams();
  return status;
}

// Those whose rows are all overwritten.
void ReplicaBuilder::ForgetOldStreams() {
  const uint64_t capacity = store_->shape().capacity;
  if (next_number_ - streams_looked_at_ < capacity / 4) return;
  streams_looked_at_ = next_number_;
  absl::erase_if(streams_, [&](const auto& entry) {
    return entry.second.newest_number + capacity < next_number_;
  });
}

}  // namespace troupe
