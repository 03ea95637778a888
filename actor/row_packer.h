#ifndef TROUPE_ACTOR_ROW_PACKER_H_
#define TROUPE_ACTOR_ROW_PACKER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "common/layout.h"
#include "proto/experience.pb.h"

namespace troupe {

// The layout of the rows of an environment: observation f32, action (f32 with its bounds, or i32
// with its number of choices) and reward f32.
proto::Layout MakeLayout(const EnvSpec& spec);

// Writes the rows of one environment into memory that its layout describes.  Thread-safe.
class RowPacker final {
 public:
  // NOT_FOUND if `layout` lacks a column of MakeLayout.
  static absl::StatusOr<RowPacker> Create(const Layout& layout);

  // s_t, a_t and the reward that a_t earned.  `row`: one zeroed stride.
  void PackStep(uint64_t policy_version, absl::Span<const float> observation,
                absl::Span<const float> action, float reward, absl::Span<char> row) const;
  // s_T and why the episode ended there.
  void PackFinal(uint64_t policy_version, absl::Span<const float> observation, bool terminated,
                 bool truncated, absl::Span<char> row) const;

 private:
  RowPacker() = default;

  int64_t observation_offset_ = 0;
  int64_t action_offset_ = 0;
  int64_t reward_offset_ = 0;
  bool discrete_ = false;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ROW_PACKER_H_
