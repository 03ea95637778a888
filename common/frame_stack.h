#ifndef TROUPE_COMMON_FRAME_STACK_H_
#define TROUPE_COMMON_FRAME_STACK_H_

#include <cstdint>

#include "proto/config.pb.h"

namespace troupe {

// Rows hold one frame each, and a policy sees the last frame_stack of them: so windows begin some
// rows earlier than what is learned from.

// Of the policy that the learner trains; meaningless where rows have no image.
inline const proto::ImageEncoder& PolicyEncoder(const proto::Learner& learner) {
  return learner.has_ppo() ? learner.ppo().encoder() : learner.sac().encoder();
}

// Rows of a window before the one that a transition of SAC begins with.
inline int64_t LeadRows(const proto::Sac& sac) { return sac.encoder().frame_stack() - 1; }

// Rows of a window before those of the unroll.  One more, for the last row of the unroll before may
// be flagged kCut and hold the first frame of this one.  So the first unroll of a stream begins
// with row LeadRows, and the rows before it are steps like any others that nobody learns from:
// unroll k is the rows [lead + k (T + 1), lead + (k + 1) (T + 1)).
inline int64_t UnrollLeadRows(int64_t frame_stack) { return frame_stack > 1 ? frame_stack : 0; }
inline int64_t LeadRows(const proto::Ppo& ppo) {
  return UnrollLeadRows(ppo.encoder().frame_stack());
}

}  // namespace troupe

#endif  // TROUPE_COMMON_FRAME_STACK_H_
