#ifndef TROUPE_LEARNER_FUSED_SAC_H_
#define TROUPE_LEARNER_FUSED_SAC_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/flat_parameters.h"
#include "common/layout.h"
#include "learner/algorithm.h"
#include "learner/fused/sac_engine.h"
#include "learner/prioritized.h"
#include "learner/prioritized_replica_store.h"
#include "learner/transitions.h"
#include "proto/config.pb.h"

namespace troupe {

// Soft Actor-Critic on a fused engine: the algorithm, the initial networks and the checkpoints of
// Sac, so that a run may be resumed with either.  Not thread-safe.
class FusedSac final : public Algorithm {
 public:
  struct Options {
    proto::Sac config;
    uint64_t seed = 1;
    std::optional<Prioritized> prioritized{};  // none: batches are uniform
    int ranks = 1;  // that share each update; the engine's batch is that of all of them
  };
  using EngineMaker = std::function<absl::StatusOr<std::unique_ptr<SacEngine>>(const SacModel&)>;

  // UNIMPLEMENTED names the setting that fused engines do not compute, or is the maker's.
  // INVALID_ARGUMENT: a layout that SAC cannot learn from.
  static absl::StatusOr<std::unique_ptr<FusedSac>> Create(const Options& options,
                                                          const Layout& layout,
                                                          const EngineMaker& make_engine);

  absl::Status Update(const WindowBatch& batch, int64_t env_steps) override;
  std::vector<float> Priorities() const override;
  absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) override;
  absl::Status UpdateFromReplica(int64_t count, int64_t env_steps) override;
  int64_t updates() const override { return engine_->updates(); }
  std::map<std::string, double> Statistics() const override;
  bool TakePolicy() override;
  absl::StatusOr<std::string> EncodePolicy(const PolicyStamp& stamp) const override;
  absl::StatusOr<std::map<std::string, std::string>> Save() const override;
  absl::Status Load(const std::map<std::string, std::string>& files) override;

 private:
  FusedSac(const Options& options, TransitionReader reader, int64_t stride_bytes,
           std::unique_ptr<SacEngine> engine);

  absl::Status Initialize();
  absl::Status UpdateByPriority(int64_t env_steps);
  absl::Status LoadFiles(const std::map<std::string, std::string>& files);

  const proto::Sac config_;
  const std::optional<Prioritized> prioritized_;
  const uint64_t draw_seed_;
  const TransitionReader reader_;
  const int64_t stride_bytes_;
  const std::unique_ptr<SacEngine> engine_;
  // The shapes and names of the parameters; what they hold is the engine's when they were last
  // asked for.
  mutable FlatParameters actor_, critics_, target_critics_;
  // Updates behind the copy that TakePolicy() took; -1: it is encoded, or there was none.
  mutable int64_t taken_updates_ = -1;
  // Of the batch at hand.
  std::vector<ReplicaTransition> transitions_;
  std::vector<float> rows_, probabilities_;
  std::vector<uint64_t> drawn_;
  // Where batches are drawn by priority; else the replica is the engine's.
  std::unique_ptr<PrioritizedReplicaStore> replica_;
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_FUSED_SAC_H_
