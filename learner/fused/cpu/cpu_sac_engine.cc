#include "learner/fused/cpu/cpu_sac_engine.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "learner/fused/cpu/aligned_floats.h"
#include "learner/fused/cpu/padded_mlp.h"
#include "learner/fused/cpu/sac_worker.h"
#include "learner/fused/cpu/thread_team.h"
#include "learner/fused/sac_formulas.h"
#include "learner/ram_replica_store.h"

namespace troupe {
namespace cpu {
namespace {

// A thread with fewer rows of a batch would wait more than it works.
constexpr int64_t kMinRows = 16;
// Threads begin at multiples of it, which fill the kernels' panels.
constexpr int64_t kRowsTogether = 8;
// What SacSums holds.
constexpr int64_t kNumSums = 4;

Unit UnitOf(HiddenUnit unit) {
  if (unit == HiddenUnit::kTanh) return Unit::kTanh;
  return unit == HiddenUnit::kElu ? Unit::kElu : Unit::kRelu;
}

int TeamSize(int64_t rows, int num_threads) {
  return static_cast<int>(std::clamp<int64_t>(rows / kMinRows, 1, std::max(num_threads, 1)));
}

// The parameters of `copies` equal networks one after another, with Adam's moments of them.
struct Parameters {
  const PaddedMlp& mlp;
  const int copies;
  AlignedFloats values, m, v, transposed;
  int64_t steps = 0;

  Parameters(const PaddedMlp& mlp, int copies)
      : mlp(mlp),
        copies(copies),
        values(copies * mlp.size()),
        m(values.size()),
        v(values.size()),
        transposed(copies * mlp.transposed_size()) {}

  void Pack(const std::vector<float>& flat, AlignedFloats& padded) const {
    for (int e = 0; e < copies; ++e) mlp.Pack(flat.data(), e, padded.data() + e * mlp.size());
  }
  std::vector<float> Unpack(const AlignedFloats& padded, int64_t flat_size) const {
    std::vector<float> flat(flat_size);
    for (int e = 0; e < copies; ++e) mlp.Unpack(padded.data() + e * mlp.size(), e, flat.data());
    return flat;
  }
  void Load(const DescendedVector& from) {
    Pack(from.values, values);
    Pack(from.m, m);
    Pack(from.v, v);
    steps = from.steps;
    Transpose(0, 1);
  }
  DescendedVector Save(int64_t flat_size) const {
    return {Unpack(values, flat_size), Unpack(m, flat_size), Unpack(v, flat_size), steps};
  }
  void Transpose(int part, int parts) {
    for (int e = 0; e < copies; ++e) {
      mlp.Transpose(values.data() + e * mlp.size(), part, parts,
                    transposed.data() + e * mlp.transposed_size());
    }
  }
};

class CpuSacEngine final : public SacEngine {
 public:
  CpuSacEngine(const SacModel& model, int num_threads, const Kernels& kernels, RankGroup* ranks);

  const SacModel& model() const override { return model_; }
  absl::Status Update(const SacBatch& batch) override;
  std::vector<float> AbsoluteErrors() const override;
  absl::StatusOr<ReplicaStore*> MakeReplica(const ReplicaShape& shape) override;
  absl::Status UpdateFromReplica(int64_t count) override;
  int64_t updates() const override { return updates_; }
  absl::StatusOr<SacStatistics> Statistics() const override { return statistics_; }
  absl::StatusOr<std::vector<float>> ActorParameters() const override {
    return actor_.Unpack(actor_.values, actor_network_.size);
  }
  absl::StatusOr<SacState> Save() const override;
  absl::Status Load(const SacState& state) override;

 private:
  // On one of the team's threads: the batch that the workers hold.
  void Learn(int thread, const SacWorker::Draws& draws, float alpha);
  // The update that Learn() made, of the batch that `set` gives to a worker.
  absl::Status UpdateWith(const SacWorker::Draws& draws, absl::FunctionRef<void(SacWorker&)> set);
  // What the next update draws; valid until its end.
  SacWorker::Draws DrawsOfUpdate();
  void DrawTransitions(SacWorker& worker) const;
  // A thread's part of Adam's step, and of what the next passes need of the new values.
  void Descend(int thread, float learning_rate, absl::Span<float* const> gradients,
               AlignedFloats* targets, Parameters& parameters);
  // A thread's part of summing `gradients`, and what SacSums holds, over threads and ranks into
  // summed_.
  void SumOverRanks(int thread, absl::Span<float* const> gradients, int64_t size);
  SacSums Sums() const;
  bool ImprovesActor() const { return (updates_ + 1) % model_.actor_update_interval == 0; }
  float Alpha() const { return model_.has_entropy ? std::exp(log_alpha_.values[0]) : 0; }
  void FinishUpdate();
  void ImproveTemperature(float log_pi);

  const SacModel model_;
  RankGroup* const ranks_;  // null: alone
  const int64_t share_;     // rows of the batch that are this rank's, the first of which is
  const int64_t first_row_;
  const Kernels& kernels_;
  const FlatNetwork actor_network_, critic_network_;
  const PaddedMlp actor_mlp_, critic_mlp_;
  Parameters actor_, critics_;
  AlignedFloats target_critics_;
  DescendedVector log_alpha_;
  int64_t updates_ = 0;
  uint64_t seed_ = 1;
  SacStatistics statistics_;
  std::unique_ptr<RamReplicaStore> replica_;
  std::vector<int32_t> target_order_;                       // critics, those of the target first
  std::vector<SacWorker> workers_;                          // one a thread
  std::vector<float*> critic_gradients_, actor_gradients_;  // theirs
  std::vector<float> summed_;  // over the ranks: a gradient, and after it the sums
  SacSums sums_of_ranks_;
  absl::Status of_ranks_;
  ThreadTeam team_;
};

CpuSacEngine::CpuSacEngine(const SacModel& model, int num_threads, const Kernels& kernels,
                           RankGroup* ranks)
    : model_(model),
      ranks_(ranks),
      share_(model.batch_size / (ranks == nullptr ? 1 : ranks->size())),
      first_row_(ranks == nullptr ? 0 : ranks->rank() * share_),
      kernels_(kernels),
      actor_network_(ActorNetwork(model)),
      critic_network_(CriticNetwork(model)),
      actor_mlp_(actor_network_, UnitOf(model.actor_unit), kernels, model.observation_size),
      critic_mlp_(critic_network_, UnitOf(model.critic_unit), kernels, model.observation_size),
      actor_(actor_mlp_, 1),
      critics_(critic_mlp_, static_cast<int>(model.num_critics)),
      target_critics_(critics_.values.size()),
      log_alpha_{{0}, {0}, {0}},
      seed_(model.seed),
      target_order_(model.num_critics),
      team_(TeamSize(share_, num_threads)) {
  std::iota(target_order_.begin(), target_order_.end(), 0);
  const SacNetworks networks{actor_mlp_,        critic_mlp_,     actor_.values,
                             actor_.transposed, critics_.values, critics_.transposed,
                             target_critics_};
  const auto row = [&](int thread) {
    return first_row_ + share_ * thread / team_.size() / kRowsTogether * kRowsTogether;
  };
  if (ranks_ != nullptr) {
    summed_.resize(std::max(actor_.values.size(), critics_.values.size()) + kNumSums);
  }
  workers_.reserve(team_.size());
  for (int thread = 0; thread < team_.size(); ++thread) {
    const bool is_last = thread + 1 == team_.size();
    SacWorker& worker = workers_.emplace_back(model, networks, kernels, row(thread),
                                              is_last ? first_row_ + share_ : row(thread + 1));
    critic_gradients_.push_back(worker.critic_gradient().data());
    actor_gradients_.push_back(worker.actor_gradient().data());
  }
}

absl::Status CpuSacEngine::Load(const SacState& state) {
  actor_.Load(state.actor);
  critics_.Load(state.critics);
  critics_.Pack(state.target_critics, target_critics_);
  log_alpha_ = state.log_alpha;
  updates_ = state.updates;
  seed_ = state.seed;
  return absl::OkStatus();
}

absl::StatusOr<SacState> CpuSacEngine::Save() const {
  return SacState{.actor = actor_.Save(actor_network_.size),
                  .critics = critics_.Save(critic_network_.size),
                  .log_alpha = log_alpha_,
                  .target_critics = critics_.Unpack(target_critics_, critic_network_.size),
                  .updates = updates_,
                  .seed = seed_};
}

absl::Status CpuSacEngine::Update(const SacBatch& batch) {
  SacWorker::Draws draws = DrawsOfUpdate();
  if (!batch.noise.empty()) {
    draws.of_next_action = batch.noise.data();
    draws.of_action = draws.of_next_action + model_.batch_size * model_.action_size;
  }
  if (!batch.target_critics.empty()) draws.target_critics = batch.target_critics;
  return UpdateWith(draws, [&](SacWorker& worker) {
    const int64_t first = worker.begin() - first_row_;
    for (int64_t i = 0; i < worker.size(); ++i) {
      worker.SetTransition(i, batch.transitions[first + i], batch.rows.data(),
                           batch.weights.empty() ? 1 : batch.weights[first + i]);
    }
  });
}

SacWorker::Draws CpuSacEngine::DrawsOfUpdate() {
  const auto update = static_cast<uint64_t>(updates_);
  // All of them in their order, unless it is a subset.
  if (model_.target_subset < model_.num_critics) {
    DrawSubset(seed_, update, static_cast<int32_t>(model_.num_critics),
               static_cast<int32_t>(model_.target_subset), target_order_.data());
  }
  return {.seed = seed_,
          .update = update,
          .target_critics = absl::MakeSpan(target_order_).subspan(0, model_.target_subset)};
}

std::vector<float> CpuSacEngine::AbsoluteErrors() const {
  std::vector<float> errors;
  for (const SacWorker& worker : workers_) {
    errors.insert(errors.end(), worker.absolute_errors().begin(), worker.absolute_errors().end());
  }
  return errors;
}

absl::Status CpuSacEngine::UpdateWith(const SacWorker::Draws& draws,
                                      absl::FunctionRef<void(SacWorker&)> set) {
  const float alpha = Alpha();
  team_.Run([&](int thread) {
    set(workers_[thread]);
    Learn(thread, draws, alpha);
  });
  if (of_ranks_.ok()) FinishUpdate();
  return of_ranks_;
}

absl::StatusOr<ReplicaStore*> CpuSacEngine::MakeReplica(const ReplicaShape& shape) {
  if (replica_ == nullptr) replica_ = std::make_unique<RamReplicaStore>(shape);
  return replica_.get();
}

absl::Status CpuSacEngine::UpdateFromReplica(int64_t count) {
  if (replica_ == nullptr || replica_->head() == replica_->tail()) {
    return absl::FailedPreconditionError("the replica holds no transitions");
  }
  for (; count > 0; --count) {
    const absl::Status status =
        UpdateWith(DrawsOfUpdate(), [this](SacWorker& worker) { DrawTransitions(worker); });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void CpuSacEngine::DrawTransitions(SacWorker& worker) const {
  const uint64_t tail = replica_->tail(), n = replica_->head() - tail;
  for (int64_t i = 0; i < worker.size(); ++i) {
    const RandomWords words = DrawWords(seed_, static_cast<uint64_t>(updates_), Draw::kTransition,
                                        static_cast<uint32_t>(worker.begin() + i));
    worker.SetTransition(i, replica_->transition(tail + DrawBelow(words, n)), replica_->row(0));
  }
}

void CpuSacEngine::Learn(int thread, const SacWorker::Draws& draws, float alpha) {
  workers_[thread].DifferentiateCritics(draws, alpha);
  Descend(thread, model_.critic_learning_rate, critic_gradients_, &target_critics_, critics_);
  if (!ImprovesActor() || !of_ranks_.ok()) return;
  workers_[thread].DifferentiateActor(draws, alpha);
  Descend(thread, model_.actor_learning_rate, actor_gradients_, nullptr, actor_);
}

void CpuSacEngine::SumOverRanks(int thread, absl::Span<float* const> gradients, int64_t size) {
  const int64_t begin = size * thread / team_.size(), end = size * (thread + 1) / team_.size();
  std::copy(gradients[0] + begin, gradients[0] + end, summed_.begin() + begin);
  for (const float* gradient : gradients.subspan(1)) {
    for (int64_t i = begin; i < end; ++i) summed_[i] += gradient[i];
  }
  team_.Barrier();
  if (thread == 0) {
    const SacSums own = Sums();
    float* const sums = summed_.data() + size;
    sums[0] = static_cast<float>(own.squared_error);
    sums[1] = static_cast<float>(own.q);
    sums[2] = static_cast<float>(own.actor_loss);
    sums[3] = static_cast<float>(own.log_pi);
    of_ranks_ = ranks_->Sum(absl::MakeSpan(summed_.data(), size + kNumSums));
    sums_of_ranks_ = {sums[0], sums[1], sums[2], sums[3]};
  }
  team_.Barrier();
}

void CpuSacEngine::Descend(int thread, float learning_rate, absl::Span<float* const> gradients,
                           AlignedFloats* targets, Parameters& parameters) {
  team_.Barrier();  // all gradients are there
  float* const summed = summed_.data();
  if (ranks_ != nullptr) {
    SumOverRanks(thread, gradients, parameters.values.size());
    if (!of_ranks_.ok()) return;
    gradients = {&summed, 1};
  }
  const int64_t lines = parameters.values.size() / kRowFloats;
  const int64_t begin = lines * thread / team_.size() * kRowFloats;
  const int64_t end = lines * (thread + 1) / team_.size() * kRowFloats;
  const AdamSizes sizes = AdamSizesOf(learning_rate, parameters.steps + 1);
  kernels_.adam({.n = end - begin,
                 .gradients = gradients.data(),
                 .num_gradients = static_cast<int64_t>(gradients.size()),
                 .gradient_offset = begin,
                 .values = parameters.values.data() + begin,
                 .m = parameters.m.data() + begin,
                 .v = parameters.v.data() + begin,
                 .rate = sizes.rate,
                 .inverse_root = sizes.inverse_root,
                 .epsilon = kAdamEpsilon,
                 .targets = targets == nullptr ? nullptr : targets->data() + begin,
                 .tau = model_.tau});
  team_.Barrier();  // all values are new
  parameters.Transpose(thread, team_.size());
  if (thread == 0) ++parameters.steps;
  team_.Barrier();
}

SacSums CpuSacEngine::Sums() const {
  SacSums sums;
  for (const SacWorker& worker : workers_) {
    sums.squared_error += worker.sums().squared_error;
    sums.q += worker.sums().q;
    sums.actor_loss += worker.sums().actor_loss;
    sums.log_pi += worker.sums().log_pi;
  }
  return sums;
}

void CpuSacEngine::FinishUpdate() {
  const SacSums sums = ranks_ == nullptr ? Sums() : sums_of_ranks_;
  const auto b = static_cast<double>(model_.batch_size);
  statistics_.q_loss = static_cast<float>(sums.squared_error / (2 * b));
  statistics_.q_mean = static_cast<float>(sums.q / (static_cast<double>(model_.num_critics) * b));
  if (ImprovesActor()) {
    statistics_.actor_loss = static_cast<float>(sums.actor_loss / b);
    statistics_.entropy = static_cast<float>(-sums.log_pi / b);
    ImproveTemperature(-statistics_.entropy);
  }
  statistics_.alpha = std::exp(log_alpha_.values[0]);
  ++updates_;
}

void CpuSacEngine::ImproveTemperature(float log_pi) {
  if (!model_.automatic_temperature) return;
  const AdamSizes sizes = AdamSizesOf(model_.alpha_learning_rate, ++log_alpha_.steps);
  log_alpha_.values[0] = AdamStep(sizes, -(log_pi + model_.target_entropy), log_alpha_.values[0],
                                  log_alpha_.m[0], log_alpha_.v[0]);
}

}  // namespace
}  // namespace cpu

std::unique_ptr<SacEngine> MakeCpuSacEngine(const SacModel& model, int num_threads,
                                            const cpu::Kernels& kernels, RankGroup* ranks) {
  return std::make_unique<cpu::CpuSacEngine>(model, num_threads, kernels, ranks);
}

}  // namespace troupe
