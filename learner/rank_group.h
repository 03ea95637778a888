#ifndef TROUPE_LEARNER_RANK_GROUP_H_
#define TROUPE_LEARNER_RANK_GROUP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace troupe {

// Learner processes that take each update together, each on a share of its batch (data
// parallelism): rank 0 also publishes, saves and logs.
//
// Every rank makes the same calls in the same order; each waits for all.  UNAVAILABLE: a rank is
// gone, or was silent for too long; the group is of no more use then.  Not thread-safe.
class RankGroup {
 public:
  virtual ~RankGroup() = default;

  virtual int rank() const = 0;  // 0, ..., size() - 1
  virtual int size() const = 0;

  // Replaces `values` by their sums over all ranks, the same bits at each.
  virtual absl::Status Sum(absl::Span<float> values) = 0;
  virtual absl::Status Sum(absl::Span<double> values) = 0;
  // The same for n floats in the memory of the group's GPU, as a part of what `stream`, a
  // cudaStream_t, does, or else LibTorch's current one: on return it may still be under way.  It
  // may be captured into a graph after it was called once.  UNIMPLEMENTED: the group has no GPU.
  virtual absl::Status SumOnDevice(float* values, int64_t n, void* stream = nullptr) {
    return absl::UnimplementedError("these ranks sum in the host's memory");
  }
  // The least `value` of any rank.
  virtual absl::StatusOr<int64_t> Least(int64_t value) = 0;
  // What rank 0 gives; the others' `bytes` do not matter.
  virtual absl::StatusOr<std::string> FromFirst(std::string bytes) = 0;
};

struct RankOptions {
  int rank = 0, size = 1;
  // host:port where rank 0 listens, on all of its host's addresses, and the others find it.
  std::string rendezvous;
  // Where the ranks sum, as learner.device.  On a GPU a rank that is silent for too long ends the
  // process.
  std::string device = "cpu";
  // How long a rank may be silent.
  absl::Duration timeout = absl::Seconds(30);
};

// Waits until all ranks are there.  Over c10d's Gloo or, on a GPU, its NCCL, in plaintext: for
// networks that are trusted.  UNIMPLEMENTED: this build has not that one; INVALID_ARGUMENT: not a
// rendezvous; CANCELLED: `stopped` was true first, which is asked between attempts.
absl::StatusOr<std::unique_ptr<RankGroup>> JoinRanks(const RankOptions& options,
                                                     const std::function<bool()>& stopped);

}  // namespace troupe

#endif  // TROUPE_LEARNER_RANK_GROUP_H_
