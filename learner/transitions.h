#ifndef TROUPE_LEARNER_TRANSITIONS_H_
#define TROUPE_LEARNER_TRANSITIONS_H_

#include <torch/torch.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/layout.h"

namespace troupe {

// A batch of n-step transitions, in the symbols of the papers.
struct Transitions {
  torch::Tensor s;       // [B, observation_size]
  torch::Tensor a;       // [B, action_size], scaled to (-1, 1)
  torch::Tensor r;       // [B], sum of gamma^i r_i over the k <= n steps of the transition
  torch::Tensor gamma;   // [B], gamma^k
  torch::Tensor d;       // [B], 1 if the episode terminated in s_next; truncation leaves it 0
  torch::Tensor s_next;  // [B, observation_size], the observation k steps after s
};

// Reads windows of n + 1 packed rows as n-step transitions.
//
// A window may run past the end of an episode: the transition then ends at the first final row, so
// that k < n.  Immutable, so thread-safe.
class TransitionReader final {
 public:
  struct Options {
    int64_t n_step = 1;
    double gamma = 0.99;
    torch::TensorOptions tensors = torch::kFloat32;  // dtype and device of the transitions
  };

  // INVALID_ARGUMENT names the column that is missing, is not FLOAT32, or, for the action, has no
  // finite bounds.
  static absl::StatusOr<TransitionReader> Create(const Layout& layout, const Options& options);

  int64_t observation_size() const { return observation_.num_elements; }
  int64_t action_size() const { return action_.num_elements; }
  const proto::Column& action() const { return action_column_; }

  // `windows`: [num_windows, n_step + 1] rows.  The transitions may be views of them.
  Transitions Read(const uint8_t* windows, int64_t num_windows) const;

 private:
  TransitionReader() = default;

  Options options_;
  int64_t stride_bytes_ = 0;
  ColumnLayout observation_, action_, reward_;
  proto::Column action_column_;
  torch::Tensor action_center_, action_scale_;  // [action_size]
  torch::Tensor discounts_;                     // [n_step], gamma^i
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_TRANSITIONS_H_
