#ifndef TROUPE_LEARNER_SAC_POLICY_H_
#define TROUPE_LEARNER_SAC_POLICY_H_

#include <cstdint>

#include "common/policy_codec.h"
#include "learner/algorithm.h"
#include "learner/transitions.h"
#include "proto/config.pb.h"

namespace troupe {

// The encoder that `config` wants of the images in rows, if there are any.
ImageEncoderShape SacEncoder(const proto::Sac& config, const TransitionReader& reader);

// What a snapshot of SAC's policy after `updates` gradient steps says, whichever engine made them.
PolicyMetadata SacPolicyMetadata(const proto::Sac& config, const TransitionReader& reader,
                                 const PolicyStamp& stamp, int64_t updates);

}  // namespace troupe

#endif  // TROUPE_LEARNER_SAC_POLICY_H_
