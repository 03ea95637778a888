#ifndef TROUPE_ACTOR_FRAME_STACKS_H_
#define TROUPE_ACTOR_FRAME_STACKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/types/span.h"

namespace troupe {

// The last frames of each of a number of environments, oldest first; at the beginning of an episode
// its first frame, repeated.  Not thread-safe.
class FrameStacks final {
 public:
  FrameStacks(int64_t num_envs, int64_t frame_bytes)
      : num_envs_(num_envs), frame_bytes_(frame_bytes) {
    SetDepth(1);
  }

  // Frames of a stack, 1 at first.  Another depth than before forgets what was there.
  void SetDepth(int64_t depth) {
    depth = std::max<int64_t>(1, depth);
    if (depth == depth_) return;
    depth_ = depth;
    bytes_.assign(num_envs_ * stack_bytes(), 0);
  }
  int64_t stack_bytes() const { return depth_ * frame_bytes_; }

  // [depth, frame_bytes]
  absl::Span<uint8_t> stack(int64_t env) {
    return absl::MakeSpan(bytes_).subspan(env * stack_bytes(), stack_bytes());
  }
  // The stacks of the first `n` environments.
  absl::Span<const uint8_t> first(int64_t n) const {
    return absl::MakeConstSpan(bytes_).first(n * stack_bytes());
  }
  absl::Span<const uint8_t> newest(int64_t env) {
    return stack(env).subspan((depth_ - 1) * frame_bytes_);
  }

  void Begin(int64_t env, absl::Span<const uint8_t> frame) {
    for (int64_t i = 0; i < depth_; ++i) absl::c_copy(frame, stack(env).begin() + i * frame_bytes_);
  }
  void Push(int64_t env, absl::Span<const uint8_t> frame) {
    const absl::Span<uint8_t> frames = stack(env);
    std::copy(frames.begin() + frame_bytes_, frames.end(), frames.begin());
    absl::c_copy(frame, frames.end() - frame_bytes_);
  }

 private:
  const int64_t num_envs_, frame_bytes_;
  int64_t depth_ = 0;
  std::vector<uint8_t> bytes_;  // [num_envs, depth, frame_bytes]
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_FRAME_STACKS_H_
