#ifndef TROUPE_REPLAY_SERVER_RATE_LIMITER_H_
#define TROUPE_REPLAY_SERVER_RATE_LIMITER_H_

#include "common/rate_limit.h"

namespace troupe {

using RateLimiterOptions = RateLimit;

}  // namespace troupe

#endif  // TROUPE_REPLAY_SERVER_RATE_LIMITER_H_
