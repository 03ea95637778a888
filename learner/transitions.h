#ifndef TROUPE_LEARNER_TRANSITIONS_H_
#define TROUPE_LEARNER_TRANSITIONS_H_

#include <torch/torch.h>

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "common/layout.h"
#include "common/recurrent.h"
#include "proto/config.pb.h"

namespace troupe {

// The rows that transitions lie in, for networks with a memory.
struct TransitionRows {
  RowSequences in_order;    // x: observations; stored: the policy's state
  torch::Tensor now, next;  // [B], int64: where s and s_next are among the rows after burn_in
};

// Images of transitions, each frame once.
struct TransitionImages {
  torch::Tensor frames;     // uint8 [rows, height, width, channels]
  torch::Tensor now, next;  // [B, frame_stack], int64: which of them s and s_next see, oldest first
};

// A batch of n-step transitions, in the symbols of the papers.
struct Transitions {
  torch::Tensor s;       // [B, observation_size]
  torch::Tensor a;       // [B, action_size], scaled to (-1, 1)
  torch::Tensor r;       // [B], sum of gamma^i r_i over the k <= n steps of the transition
  torch::Tensor gamma;   // [B], gamma^k
  torch::Tensor d;       // [B], 1 if the episode terminated in s_next; truncation leaves it 0
  torch::Tensor s_next;  // [B, observation_size], the observation k steps after s
  std::optional<torch::Tensor> weight{};  // [B], in the critics' objective; none: all are 1
  std::optional<TransitionRows> rows{};   // if there is a memory
  std::optional<TransitionImages> images{};
};

// Reads windows of n + 1 packed rows as n-step transitions; for a policy with a memory windows of
// burn_in + sequence_length + n rows, of which each row behind burn_in but the last n, and but for
// final ones, begins a transition.
//
// A window may run past the end of an episode: the transition then ends at the first final row, so
// that k < n.  With stacks of images windows begin frame_stack - 1 rows earlier, and may have a
// final row where a transition begins: its weight is 0.  Immutable, so thread-safe.
class TransitionReader final {
 public:
  struct Options {
    int64_t n_step = 1;
    double gamma = 0.99;
    proto::Recurrence recurrence{};
    bool has_encoder = false;                        // the configuration speaks of images
    int64_t frame_stack = 1;                         // above 1: with images and without recurrence
    torch::TensorOptions tensors = torch::kFloat32;  // dtype and device of the transitions
  };

  // INVALID_ARGUMENT names the column that is missing, has another type, or, for the action, has no
  // finite bounds.
  static absl::StatusOr<TransitionReader> Create(const Layout& layout, const Options& options);

  int64_t observation_size() const { return observation_.num_elements; }
  // No elements: there are no images.
  const ColumnLayout& image() const { return image_; }
  int64_t action_size() const { return action_.num_elements; }
  const proto::Column& action() const { return action_column_; }

  // `windows`: [num_windows, rows of a window] rows.  The transitions may be views of them.
  Transitions Read(const uint8_t* windows, int64_t num_windows) const;

 private:
  TransitionReader() = default;

  absl::Status FindObservations(const Layout& layout);
  // `words`: the rows as words of 4 bytes, [B, n + 1, words of a row]; the columns are views of
  // them. `steps`, if wanted: k of each, [B] int64.
  Transitions ReadWindows(const torch::Tensor& words, torch::Tensor* steps) const;
  Transitions ReadSequences(const torch::Tensor& words) const;
  Transitions ReadStacks(const torch::Tensor& words) const;
  torch::Tensor Column(const torch::Tensor& words, const ColumnLayout& column) const;
  static torch::Tensor Flags(const torch::Tensor& words);

  Options options_;
  int64_t window_length_ = 0;
  int64_t stride_bytes_ = 0;
  ColumnLayout observation_, image_, action_, reward_, recurrent_state_;
  proto::Column action_column_;
  torch::Tensor action_center_, action_scale_;  // [action_size]
  torch::Tensor discounts_;                     // [n_step], gamma^i
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_TRANSITIONS_H_
