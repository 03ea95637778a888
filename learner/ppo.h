#ifndef TROUPE_LEARNER_PPO_H_
#define TROUPE_LEARNER_PPO_H_

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/layout.h"
#include "common/normalizer.h"
#include "common/policy.h"
#include "learner/adam.h"
#include "learner/algorithm.h"
#include "learner/ppo_fused.h"
#include "learner/ppo_gradient.h"
#include "learner/ppo_networks.h"
#include "learner/ppo_steps.h"
#include "learner/rank_group.h"
#include "learner/returns.h"
#include "learner/running_moments.h"
#include "learner/unrolls.h"
#include "proto/config.pb.h"

namespace troupe {

// Proximal Policy Optimization (Schulman et al., arXiv 1707.06347) and, by its configuration, the
// policy gradients that lead to it.  Not thread-safe.
//
// It learns with the normalizer that its last published policy carries, and counts a batch's
// observations only afterwards, so that actor and learner mean the same policy by the same version.
class Ppo final : public Algorithm {
 public:
  struct Options {
    proto::Ppo config;
    int64_t total_env_steps = 1;  // where a linear learning rate ends
    uint64_t seed = 1;
    torch::Device device = torch::kCPU;
    // Takes the gradient steps, from batches and networks on the CPU, where it can be made; none:
    // LibTorch does.
    MakePpoEngine make_engine;
    RankGroup* ranks = nullptr;  // that share each minibatch; the engine has them, too
  };

  // INVALID_ARGUMENT: a layout that PPO cannot learn from.
  static absl::StatusOr<std::unique_ptr<Ppo>> Create(const Options& options, const Layout& layout);

  using Steps = PpoSteps;
  // Counts a batch's returns into what scales rewards; before Prepare().
  absl::Status CountReturns(const Unrolls& b);
  // All steps of a batch or, with a memory, all of its sequences.
  Steps Prepare(const Unrolls& b);
  // Those of a minibatch as the networks see them, one after another; gradients reach the memory
  // and the encoder.
  Steps Seen(const Steps& minibatch) const;
  // The epochs.  Errors are RankGroup's and the engine's.
  absl::Status Improve(const Steps& steps);

  absl::Status Update(const WindowBatch& batch, int64_t env_steps) override;
  int64_t updates() const override { return updates_; }
  std::map<std::string, double> Statistics() const override { return statistics_; }
  absl::StatusOr<std::string> EncodePolicy(const PolicyStamp& stamp) const override;
  absl::StatusOr<std::map<std::string, std::string>> Save() const override;
  absl::Status Load(const std::map<std::string, std::string>& files) override;

  PpoActor& actor() { return actor_; }
  PpoCritic& critic() { return critic_; }
  double kl_coefficient() const { return kl_coefficient_; }
  double learning_rate() const { return learning_rate_; }
  // OK if an engine takes the steps, else why not.
  const absl::Status& fused() const { return fused_status_; }

 private:
  // How far the policy has come from the one that drew its actions, over an epoch.
  struct Distance;
  struct Share;

  Ppo(const Options& options, UnrollReader reader, PolicyMetadata policy, int64_t stride_bytes,
      absl::StatusOr<std::unique_ptr<FusedPpo>> fused);

  Normalizer ObservationNormalizer() const;
  // Adds these samples, and those of the other ranks.
  absl::Status Count(const torch::Tensor& samples, RunningMoments& moments);
  torch::Tensor ScaledRewards(const Unrolls& b) const;
  // What the networks see of all rows, whose normalized observations are `s`, [B, T + 1, inputs].
  torch::Tensor SeeAll(const Unrolls& b, const torch::Tensor& s) const;
  Targets MakeTargets(const Unrolls& b, const torch::Tensor& r, const torch::Tensor& s,
                      const torch::Tensor& v) const;
  absl::StatusOr<int64_t> MinibatchesOf(const Steps& steps);
  std::vector<torch::Tensor> DrawOrders(int64_t steps);
  // One gradient step for each minibatch; `orders`: of the steps in each epoch.
  absl::StatusOr<Distance> ImproveByReference(const Steps& steps,
                                              const std::vector<torch::Tensor>& orders,
                                              int64_t minibatches);
  absl::StatusOr<Distance> ImproveFused(const Steps& steps, const torch::Tensor& order,
                                        int64_t minibatches);
  // One gradient step; false: the KL is above max_kl, and none was taken.
  absl::StatusOr<bool> StepOn(const Steps& minibatch, const torch::Tensor& old_log_std,
                              Distance* distance);
  absl::StatusOr<Share> ShareOf(const torch::Tensor& advantage);
  absl::Status SumOverRanks(PpoLoss& loss);
  // Add the loss's gradients, by the rows that are here, to the parameters'.
  void DifferentiateInClosedForm(const Steps& minibatch, const Share& share, PpoLoss& loss);
  void Differentiate(const Steps& minibatch, const torch::Tensor& old_log_std, const Share& share,
                     PpoLoss& loss);
  torch::Tensor Standardized(const torch::Tensor& advantage, const Share& share) const;
  torch::Tensor Surrogate(const Steps& minibatch, const Share& share, const torch::Tensor& log_pi,
                          const torch::Tensor& kl) const;
  void ClipGradients();
  void AdaptLearningRate(double kl);
  void SetLearningRate(double learning_rate);
  absl::Status LoadFiles(const std::map<std::string, std::string>& files);

  const proto::Ppo config_;
  const int64_t total_env_steps_;
  const UnrollReader reader_;
  const PolicyMetadata policy_;  // what does not change from snapshot to snapshot
  const int64_t stride_bytes_;
  RankGroup* const ranks_;
  const torch::Device device_;
  const bool exact_kl_;
  const bool closed_gradient_;
  const absl::Status fused_status_;
  const std::unique_ptr<FusedPpo> fused_;  // nullptr: none
  PpoActor actor_;
  PpoCritic critic_;
  Adam actor_adam_, critic_adam_;
  RunningMoments observations_, returns_;
  at::Generator shuffle_;
  double kl_coefficient_;
  double learning_rate_;
  int64_t updates_ = 0;
  std::map<std::string, double> statistics_;  // of the last batch
};

}  // namespace troupe

#endif  // TROUPE_LEARNER_PPO_H_
