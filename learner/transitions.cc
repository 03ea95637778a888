#include "learner/transitions.h"

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

using torch::Tensor;

constexpr int64_t kWord = sizeof(float);  // rows are read as words of this size

absl::StatusOr<ColumnLayout> FindFloats(const Layout& layout, absl::string_view name) {
  absl::StatusOr<ColumnLayout> column = layout.Find(name);
  if (!column.ok()) return absl::InvalidArgumentError(column.status().message());
  if (column->dtype != proto::FLOAT32) {
    return absl::InvalidArgumentError(absl::StrCat("column '", name, "' is ",
                                                   proto::DType_Name(column->dtype),
                                                   ", the learner wants FLOAT32"));
  }
  return column;
}

absl::Status CheckBounds(const proto::Column& action, int64_t num_elements) {
  if (action.low_size() != num_elements || action.high_size() != num_elements) {
    return absl::InvalidArgumentError("column 'action' has no bounds; SAC needs them");
  }
  for (int64_t i = 0; i < num_elements; ++i) {
    const double low = action.low(i), high = action.high(i);
    if (!std::isfinite(low) || !std::isfinite(high) || low >= high) {
      return absl::InvalidArgumentError(absl::StrCat("column 'action': bounds of element ", i,
                                                     " are [", low, ", ", high,
                                                     "]; SAC needs finite ones"));
    }
  }
  return absl::OkStatus();
}

const proto::Column* FindProto(const Layout& layout, absl::string_view name) {
  for (const proto::Column& column : layout.proto().columns()) {
    if (column.name() == name) return &column;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<TransitionReader> TransitionReader::Create(const Layout& layout,
                                                          const Options& options) {
  TransitionReader reader;
  reader.options_ = options;
  reader.stride_bytes_ = layout.stride_bytes();
  const std::pair<absl::string_view, ColumnLayout*> wanted[] = {
      {kObservation, &reader.observation_}, {kAction, &reader.action_}, {kReward, &reader.reward_}};
  for (const auto& [name, column] : wanted) {
    absl::StatusOr<ColumnLayout> found = FindFloats(layout, name);
    if (!found.ok()) return found.status();
    *column = *std::move(found);
  }
  if (reader.reward_.num_elements != 1) {
    return absl::InvalidArgumentError("column 'reward' is no scalar");
  }
  reader.action_column_ = *FindProto(layout, kAction);
  absl::Status status = CheckBounds(reader.action_column_, reader.action_size());
  if (!status.ok()) return status;
  std::vector<double> center, scale, discounts;
  for (int64_t i = 0; i < reader.action_size(); ++i) {
    const double low = reader.action_column_.low(i), high = reader.action_column_.high(i);
    center.push_back((low + high) / 2);
    scale.push_back(2 / (high - low));
  }
  for (int64_t i = 0; i < options.n_step; ++i) discounts.push_back(std::pow(options.gamma, i));
  reader.action_center_ = torch::tensor(center, torch::kFloat64).to(options.tensors);
  reader.action_scale_ = torch::tensor(scale, torch::kFloat64).to(options.tensors);
  reader.discounts_ = torch::tensor(discounts, torch::kFloat64).to(options.tensors);
  return reader;
}

Transitions TransitionReader::Read(const uint8_t* windows, int64_t num_windows) const {
  const int64_t n = options_.n_step;
  const torch::Device device = options_.tensors.device();
  // The rows as words, [B, n + 1, words of a row]; the columns are strided views of them.
  const Tensor words =
      torch::from_blob(const_cast<uint8_t*>(windows), {num_windows, n + 1, stride_bytes_ / kWord},
                       torch::kFloat32)
          .to(device);
  const auto column = [&](const ColumnLayout& c) {
    return words.narrow(2, c.offset_bytes / kWord, c.num_elements).to(options_.tensors);
  };
  const Tensor observations = column(observation_);  // [B, n + 1, observation_size]
  const Tensor rewards = column(reward_).squeeze(2).narrow(1, 0, n);  // [B, n]
  const Tensor flags = words.view(torch::kInt32).select(2, offsetof(RowHeader, flags) / kWord);

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
  const Tensor is_final =
      ends.bitwise_and(int64_t{kTerminated | kTruncated}).ne(0).to(options_.tensors);
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
