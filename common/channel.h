#ifndef TROUPE_COMMON_CHANNEL_H_
#define TROUPE_COMMON_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/credentials.h"
#include "grpcpp/channel.h"
#include "grpcpp/support/status.h"

namespace troupe {

// A channel of its own connection, so that one hot stream never waits for another.  Keepalive (20
// s, then 10 s for the answer) breaks the calls of a peer that vanished without a word.
// It goes to `address`, if there is one, and holds whom it finds there to the host's name in
// `target`.  FAILED_PRECONDITION as Credentials::ForChannel.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target,
                                                           const Credentials& credentials,
                                                           const std::string& address = "");

// `status` with "<what> <target>: " before its text; the codes are the same numbers.
absl::Status FromGrpc(const grpc::Status& status, absl::string_view what, absl::string_view target);

// Would the same call to the same peer fail again for the same reason?  Another run or layout, a
// malformed request, a missing table or method, a missing right: yes.  A peer that is gone,
// starting, draining or full: no.
bool IsPermanent(const absl::Status& status);

// Delays that double from `min` to `max`, each drawn from [1/2, 1] of that.  Not thread-safe.
class Backoff final {
 public:
  Backoff(absl::Duration min, absl::Duration max, uint64_t seed);

  absl::Duration Next();
  void Reset() { next_ = min_; }  // after a success

 private:
  const absl::Duration min_;
  const absl::Duration max_;
  absl::Duration next_;
  std::mt19937_64 random_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_CHANNEL_H_
