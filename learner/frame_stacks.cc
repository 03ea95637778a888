#include "learner/frame_stacks.h"

#include <algorithm>
#include <vector>

namespace troupe {

using torch::Tensor;

Tensor StackedRows(const Tensor& flags, int64_t frame_stack) {
  const int64_t windows = flags.size(0), length = flags.size(1);
  const auto has = [&](int64_t bits) { return flags.bitwise_and(bits).ne(0); };
  const Tensor is_final = has(kFinalFlags), ended = has(kTerminated | kTruncated);
  // Of the row so many rows before; true where that is not in the window.
  const auto earlier = [&](const Tensor& of_rows, int64_t rows) {
    return torch::cat({torch::ones_like(of_rows.narrow(1, 0, std::min(rows, length))),
                       of_rows.narrow(1, 0, std::max<int64_t>(length - rows, 0))},
                      1);
  };
  // No frame comes before: none in the window, or none of the episode.
  const Tensor is_first =
      earlier(ended, 1).logical_or(earlier(is_final, 1).logical_and(earlier(is_final, 2)));
  const Tensor back =
      (1 + earlier(is_final, 1).to(torch::kInt64)).masked_fill(is_first, 0);  // rows, 0 to 2
  const Tensor row = torch::arange(length, back.options()).expand({windows, length});
  const Tensor before = row - back;
  std::vector<Tensor> stack = {row};  // the newest first
  while (static_cast<int64_t>(stack.size()) < frame_stack) {
    stack.push_back(before.gather(1, stack.back()));
  }
  std::reverse(stack.begin(), stack.end());
  const Tensor begin = torch::arange(windows, back.options()) * length;
  return torch::stack(stack, 2) + begin.view({-1, 1, 1});
}

Tensor FramesOf(const Tensor& words, const ColumnLayout& image) {
  return words.view(torch::kUInt8)
      .flatten(0, 1)
      .narrow(1, image.offset_bytes, image.num_elements)
      .unflatten(1, image.shape);
}

Tensor GatherStacks(const Tensor& frames, const Tensor& stacks) {
  return frames.index_select(0, stacks.flatten()).unflatten(0, stacks.sizes());
}

Tensor GatherShifted(const Tensor& frames, const Tensor& stacks, const Tensor& shift) {
  const auto places = [&](int64_t axis, int64_t size) {  // [B, size]: where each pixel comes from
    return (torch::arange(size, shift.options()) - shift.select(1, axis).unsqueeze(1))
        .clamp(0, size - 1);
  };
  const Tensor y = places(0, frames.size(1)), x = places(1, frames.size(2));
  return frames.index(
      {stacks.unsqueeze(2).unsqueeze(3), y.unsqueeze(1).unsqueeze(3), x.unsqueeze(1).unsqueeze(2)});
}

}  // namespace troupe
