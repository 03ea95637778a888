#ifndef TROUPE_LEARNER_FUSED_BLOCK_PPO_ENGINE_H_
#define TROUPE_LEARNER_FUSED_BLOCK_PPO_ENGINE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/fused/ppo_engine.h"
#include "learner/fused/ppo_task.h"
#include "learner/rank_group.h"

namespace troupe {

// What executes the programs of ppo_program.h: a GPU, or a test's threads.
//
// Not thread-safe.  The calls take effect in their order, though all but Download may return before
// they have.
class PpoMachine {
 public:
  virtual ~PpoMachine() = default;

  virtual int threads() const = 0;           // of a block; a power of two
  virtual int64_t shared_bytes() const = 0;  // most that a block's threads can share

  // Memory of the machine's, all zero, that lives as long as it.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  // `from` is free on return.
  virtual absl::Status Upload(const void* from, int64_t bytes, void* to) = 0;
  virtual absl::Status Download(const void* from, int64_t bytes, void* to) = 0;

  // The first call, before any batch: meets the ranks that the machine has.  UNIMPLEMENTED: they do
  // not sum in its memory.
  virtual absl::Status Begin(const PpoTask& task) { return absl::OkStatus(); }
  // In each epoch PpoBeginEpoch, then for i = 0, ..., minibatches - 1 the kernels of minibatch i.
  // REQUIRES: `task` is the same as in the last call, but for calls of Allocate() in between.
  virtual absl::Status RunEpochs(const PpoTask& task, int64_t epochs, int64_t minibatches) = 0;
};

// With `ranks`, which outlive it, each one's minibatch is a part of one that is shared, as in
// MakeCpuPpoEngine: `machine` sums what PpoSharedFloats counts over the same ranks.  UNIMPLEMENTED:
// networks with more layers than kMaxPpoLayers, or too wide for the machine, or its Begin().
absl::StatusOr<std::unique_ptr<PpoEngine>> MakeBlockPpoEngine(const PpoModel& model,
                                                              std::unique_ptr<PpoMachine> machine,
                                                              RankGroup* ranks = nullptr);

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_BLOCK_PPO_ENGINE_H_
