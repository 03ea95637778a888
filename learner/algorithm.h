#ifndef TROUPE_LEARNER_ALGORITHM_H_
#define TROUPE_LEARNER_ALGORITHM_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/window_batch.h"
#include "learner/replica_store.h"

namespace troupe {

// What a published policy says of the run, besides what the algorithm itself knows.
struct PolicyStamp {
  std::string run;
  uint64_t version = 0;
  int64_t env_steps = 0;
  bool warmup = false;
  bool final_one = false;
};

// What learns: windows in, policies out.
//
// Not thread-safe; the trainer owns it and calls it from one thread.
class Algorithm {
 public:
  virtual ~Algorithm() = default;

  // Learns from one batch: SAC takes one gradient step, PPO as many as its epochs have.  On a GPU
  // the work may still be under way on return.  `env_steps`: of the run so far, for schedules.
  // INVALID_ARGUMENT if the windows do not have the shape of the layout and the algorithm.
  virtual absl::Status Update(const WindowBatch& batch, int64_t env_steps) = 0;

  // New priorities of the windows of the last batch, in their order; empty: it sets none.
  virtual std::vector<float> Priorities() const { return {}; }

  // For learner.sampling = REPLICA: makes the memory of a replica, which the algorithm owns and
  // draws from in UpdateFromReplica.  UNIMPLEMENTED says why this one has none; RESOURCE_EXHAUSTED:
  // there is not so much memory.
  virtual absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) {
    return absl::UnimplementedError("this algorithm does not learn from a replica");
  }
  // Takes `count` gradient steps, each on a batch that it draws itself.  On a GPU the work may
  // still be under way on return, but not that of the call before.  REQUIRES: MakeReplica() was OK,
  // and the replica's range is not empty.
  virtual absl::Status UpdateFromReplica(int64_t count, int64_t env_steps) {
    return absl::UnimplementedError("this algorithm does not learn from a replica");
  }

  // Gradient steps ever done, those before a Load included.
  virtual int64_t updates() const = 0;

  // Losses and the like of the last update, by name.  Waits for the device; empty before the first
  // update.
  virtual std::map<std::string, double> Statistics() const = 0;

  // Begins to take a copy of the policy as it is now, which the next EncodePolicy() encodes;
  // updates go on meanwhile.  False: nothing is taken, for this algorithm would wait for its
  // updates first.
  virtual bool TakePolicy() { return false; }
  // The image of a snapshot of the policy that was taken, or else as it is now.
  virtual absl::StatusOr<std::string> EncodePolicy(const PolicyStamp& stamp) const = 0;

  // Everything that Update depends on, as files by name.  An algorithm that loads them goes on bit
  // by bit as this one would, on a CPU.
  virtual absl::StatusOr<std::map<std::string, std::string>> Save() const = 0;
  // INVALID_ARGUMENT names the file and the tensor; the algorithm must not be used then.
  virtual absl::Status Load(const std::map<std::string, std::string>& files) = 0;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_ALGORITHM_H_
