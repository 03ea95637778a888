#ifndef TROUPE_ACTOR_ROW_PACKER_H_
#define TROUPE_ACTOR_ROW_PACKER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "common/layout.h"
#include "proto/experience.pb.h"

namespace troupe {

// The layout of the rows of an environment: its columns of observations (f32, images u8), action
// (f32 with its bounds, or i32 with its numbers of choices), reward f32 and, if wanted, log_prob
// f32 and recurrent_state f32 [state_size].
proto::Layout MakeLayout(const EnvSpec& spec, bool with_log_prob = false, int64_t state_size = 0);

// One step: s_t, a_t, the reward that a_t earned, and how likely it was drawn.
struct PackedStep {
  uint64_t policy_version = 0;
  absl::Span<const float> observation;
  absl::Span<const uint8_t> images = {};
  absl::Span<const float> action;
  float reward = 0;
  float log_prob = 0;                            // left out where the layout has no such column
  absl::Span<const float> recurrent_state = {};  // the same
};

// An observation without action.
struct PackedFinal {
  uint64_t policy_version = 0;
  absl::Span<const float> observation;
  absl::Span<const uint8_t> images = {};
  uint32_t flags = 0;  // of RowFlag, why
  absl::Span<const float> recurrent_state = {};
};

// Writes the rows of one environment into memory that its layout describes.  Thread-safe.
class RowPacker final {
 public:
  // REQUIRES: `layout` is MakeLayout's.  NOT_FOUND if it lacks a column.
  static absl::StatusOr<RowPacker> Create(const Layout& layout);

  // Numbers of a row's recurrent state; 0: the layout has none.
  int64_t recurrent_state_size() const { return recurrent_state_size_; }

  // `row`: one zeroed stride.
  void PackStep(const PackedStep& step, absl::Span<char> row) const;
  void PackFinal(const PackedFinal& last, absl::Span<char> row) const;

 private:
  RowPacker() = default;

  int64_t observation_offset_ = 0;  // of the first column; the others follow without gaps
  int64_t images_offset_ = 0;       // the same
  int64_t action_offset_ = 0;
  int64_t reward_offset_ = 0;
  int64_t log_prob_offset_ = -1;         // none
  int64_t recurrent_state_offset_ = -1;  // none
  int64_t recurrent_state_size_ = 0;
  bool discrete_ = false;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROW_PACKER_H_
