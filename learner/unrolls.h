#ifndef TROUPE_LEARNER_UNROLLS_H_
#define TROUPE_LEARNER_UNROLLS_H_

#include <torch/torch.h>

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "common/layout.h"
#include "proto/experience.pb.h"

namespace troupe {

// B unrolls of T + 1 consecutive rows in CPU memory, float32 unless said.
//
// Transition t leads from row t to row t + 1.  It is none where row t is final: such a row holds
// the last observation of an episode, and the next row begins another.
struct Unrolls {
  torch::Tensor s;           // [B, T + 1, observation_size], as the environment gave it
  torch::Tensor a;           // [B, T, action_size]: in units of half the range, 0 its middle, as
                             // drawn; or the choices, int64
  torch::Tensor log_mu;      // [B, T], log-probability with which the actor drew a
  torch::Tensor r;           // [B, T]
  torch::Tensor is_step;     // [B, T], bool: row t is not final, so transition t exists
  torch::Tensor terminated;  // [B, T], bool: transition t ends in a terminated state
  torch::Tensor goes_on;  // [B, T], bool: row t + 1 is not final, so transition t + 1 continues t

  // Of a policy with a memory: its state before each row, [B, T + 1, state_size], and where that
  // does not follow from the row before, [B, T + 1] bool (RowSequences).
  torch::Tensor memory, fresh;

  // Of a policy that sees images: frames of the windows, each once, uint8 [rows, height, width,
  // channels], and which of them each row sees, oldest first, [B, T + 1, frame_stack] int64.
  torch::Tensor frames, stacks;

  int64_t num_unrolls() const { return r.size(0); }
  int64_t length() const { return r.size(1); }
};

// Reads windows of T + 1 packed rows, with stacks of frames behind some more
// (common/frame_stack.h). Immutable, so thread-safe.
class UnrollReader final {
 public:
  struct Options {
    int64_t state_size = 0;    // of the policy's memory; 0: it has none
    bool has_encoder = false;  // the configuration speaks of images
    int64_t frame_stack = 1;
  };

  // INVALID_ARGUMENT names the column that is missing or has the wrong type, or, for a continuous
  // action, no finite bounds.
  static absl::StatusOr<UnrollReader> Create(const Layout& layout, const Options& options);

  int64_t observation_size() const { return observation_.num_elements; }
  // No elements: there are no images.
  const ColumnLayout& image() const { return image_; }
  int64_t action_size() const { return action_.num_elements; }
  bool discrete() const { return action_column_.num_choices_size() > 0; }
  const proto::Column& action() const { return action_column_; }

  // `windows`: [num_windows, window_length] rows, copied.
  Unrolls Read(const uint8_t* windows, int64_t num_windows, int64_t window_length) const;

 private:
  explicit UnrollReader(const Options& options) : options_(options) {}
  absl::Status FindObservations(const Layout& layout);

  Options options_;
  int64_t stride_bytes_ = 0;
  ColumnLayout observation_, image_, action_, reward_, log_prob_;
  std::optional<ColumnLayout> memory_;
  proto::Column action_column_;
  torch::Tensor action_center_, action_scale_;  // [action_size]; continuous actions
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_UNROLLS_H_
