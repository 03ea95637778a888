#ifndef TROUPE_LEARNER_FRAME_STACKS_H_
#define TROUPE_LEARNER_FRAME_STACKS_H_

#include <torch/torch.h>

#include <cstdint>

#include "common/layout.h"

namespace troupe {

// Which rows hold the frames that a policy saw at each row of B windows of L rows, the oldest
// first: [B, L, frame_stack], int64, counted over all B * L rows.  Before an episode's first frame,
// and before the window, that first one stands again; a row flagged kCut and the next hold one
// frame, which counts once.  `flags`: of the rows, int32 [B, L].
torch::Tensor StackedRows(const torch::Tensor& flags, int64_t frame_stack);

// The frames of B windows, uint8 [B * L, height, width, channels], as a view of `words`: rows as
// words of 4 bytes, [B, L, words of a row], contiguous.
torch::Tensor FramesOf(const torch::Tensor& words, const ColumnLayout& image);

// Stacks of frames, uint8 [B, frame_stack, height, width, channels].  `stacks`: [B, frame_stack],
// as of StackedRows.
torch::Tensor GatherStacks(const torch::Tensor& frames, const torch::Tensor& stacks);

// The same, each stack moved by its own `shift`, [B, 2] int64: pixels that its content goes down
// and right, the edges repeated.
torch::Tensor GatherShifted(const torch::Tensor& frames, const torch::Tensor& stacks,
                            const torch::Tensor& shift);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FRAME_STACKS_H_
