#ifndef TROUPE_LEARNER_SAC_H_
#define TROUPE_LEARNER_SAC_H_

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/layout.h"
#include "learner/adam.h"
#include "learner/algorithm.h"
#include "learner/graphed_step.h"
#include "learner/prioritized.h"
#include "learner/prioritized_replica_store.h"
#include "learner/ram_replica_store.h"
#include "learner/rank_group.h"
#include "learner/sac_networks.h"
#include "learner/transitions.h"
#include "proto/config.pb.h"

namespace troupe {

// Soft Actor-Critic with automatic temperature (Haarnoja et al., arXiv 1812.05905) and, by its
// configuration, the variants of it with ensembles, dropout and many updates a step (REDQ, DroQ,
// RLPD).  Not thread-safe.
class Sac final : public Algorithm {
 public:
  struct Options {
    proto::Sac config;
    uint64_t seed = 1;
    torch::TensorOptions tensors = torch::kFloat32;  // dtype and device of all networks
    std::optional<Prioritized> prioritized{};        // none: batches are uniform
    RankGroup* ranks = nullptr;  // that take updates together, float32 then; null: one alone
  };

  // INVALID_ARGUMENT: a layout that SAC cannot learn from.
  static absl::StatusOr<std::unique_ptr<Sac>> Create(const Options& options, const Layout& layout);

  // One update in the paper's order: critics, policy, temperature, targets.  Errors are
  // RankGroup's.
  absl::Status Step(const Transitions& b);

  absl::Status Update(const WindowBatch& batch, int64_t env_steps) override;
  absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) override;
  absl::Status UpdateFromReplica(int64_t count, int64_t env_steps) override;
  std::vector<float> Priorities() const override;
  int64_t updates() const override { return updates_; }
  std::map<std::string, double> Statistics() const override;
  absl::StatusOr<std::string> EncodePolicy(const PolicyStamp& stamp) const override;
  absl::StatusOr<std::map<std::string, std::string>> Save() const override;
  absl::Status Load(const std::map<std::string, std::string>& files) override;

  GaussianActor& actor() { return actor_; }
  CriticEnsemble& critics() { return critics_; }
  CriticEnsemble& target_critics() { return target_critics_; }
  const torch::Tensor& log_alpha() const { return log_alpha_; }  // [1]

 private:
  Sac(const Options& options, TransitionReader reader, int64_t stride_bytes);

  // What policy and critics see of a batch; the same where they have no memory.
  struct Sight {
    SeenTransitions actor, critics;
  };
  // A batch's images, shifted, through the convolutions of the critics, where gradients reach them
  // through `now`, and of the target critics; all undefined if there are none.
  struct Convolved {
    ConvolvedTransitions by_critics, by_targets;
  };

  absl::Status TakeStep(const Transitions& b, bool with_actor);
  Convolved Convolve(const Transitions& b);
  // uint8 [B, frame_stack, height, width, channels]
  torch::Tensor ShiftedStacks(const torch::Tensor& frames, const torch::Tensor& stacks);
  absl::Status ImproveCritics(const Transitions& b, const Convolved& convolved,
                              const torch::Tensor& s_next_of_actor, const torch::Tensor& alpha);
  // Returns log pi(a|s) of the actions that it drew, [B]; of all ranks their mean, [1].
  absl::StatusOr<torch::Tensor> ImproveActor(const Transitions& b, const Sight& sight,
                                             const torch::Tensor& alpha);
  void ImproveTemperature(const torch::Tensor& log_pi);
  // Replaces these vectors by their means over the ranks; all at once, for each sum is a journey.
  absl::Status AverageOverRanks(const std::vector<torch::Tensor>& vectors);
  // J_pi, for actions `now` of the policy.
  torch::Tensor ActorLoss(const Transitions& b, const Sight& sight, const ActionSample& now,
                          const torch::Tensor& alpha);
  torch::Tensor ScoreFunctionLoss(const Sight& sight, const ActionSample& now,
                                  const torch::Tensor& alpha);
  torch::Tensor ReplayedActionLoss(const Transitions& b, const Sight& sight,
                                   const ActionSample& now, const torch::Tensor& alpha);
  torch::Tensor Aggregate(const torch::Tensor& q) const;
  torch::Tensor MinOfSubset(const torch::Tensor& q);
  // What the critics take beside s: `a`, or nothing.
  torch::Tensor CriticAction(const torch::Tensor& a) const { return on_v_ ? a.narrow(1, 0, 0) : a; }
  Transitions DrawByPriority(uint64_t seed, int64_t env_steps);
  absl::Status LoadFiles(const std::map<std::string, std::string>& files);

  const proto::Sac config_;
  RankGroup* const ranks_;
  const std::optional<Prioritized> prioritized_;
  const double target_entropy_;  // nats
  const bool on_v_;              // the critics are V(s)
  const TransitionReader reader_;
  const int64_t stride_bytes_;
  const SacSizes sizes_;
  GaussianActor actor_;
  CriticEnsemble critics_, target_critics_;
  torch::Tensor log_alpha_;
  Adam actor_adam_, critic_adam_, alpha_adam_;
  at::Generator generator_;  // of all noise in updates
  // Of critics and policy, and of the critics alone; null: there are no graphs here.
  std::unique_ptr<GraphedStep> graphed_step_, graphed_critics_step_;
  int64_t updates_ = 0;
  // Null: none was asked for; at most one of them is there.
  std::unique_ptr<RamReplicaStore> replica_;
  std::unique_ptr<PrioritizedReplicaStore> prioritized_replica_;
  std::vector<uint64_t> drawn_;  // of the second, in the last batch
  // Of the last update; not read before somebody asks.
  torch::Tensor q_loss_, actor_loss_, q_mean_, entropy_;
  torch::Tensor td_error_;  // [B], mean over the critics
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_SAC_H_
