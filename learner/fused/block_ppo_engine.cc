#include "learner/fused/block_ppo_engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/ppo_gradient.h"
#include "learner/whole_minibatches.h"

namespace troupe {
namespace {

// More rows share a read of the weights, and fewer blocks the rows.
constexpr int kMostTileRows = 8;
// Their parts of the gradient are added up one after another.
constexpr int64_t kMostRowBlocks = 64;
constexpr int64_t kMostSumBlocks = 128;

PpoPart PartOf(const FlatNetwork& network, HiddenUnit unit, int64_t more) {
  PpoPart part;
  part.num_layers = static_cast<int32_t>(network.layers.size());
  for (int l = 0; l < part.num_layers; ++l) {
    const FlatLayer& layer = network.layers[l];
    part.layers[l] = {static_cast<int32_t>(layer.k), static_cast<int32_t>(layer.n),
                      static_cast<int32_t>(layer.weights), static_cast<int32_t>(layer.bias)};
  }
  part.unit = unit;
  part.network_size = static_cast<int32_t>(network.size);
  part.size = static_cast<int32_t>(network.size + more);
  return part;
}

class BlockPpoEngine final : public PpoEngine {
 public:
  BlockPpoEngine(const PpoModel& model, std::unique_ptr<PpoMachine> machine, RankGroup* ranks)
      : config_(model.config), ranks_(ranks), machine_(std::move(machine)) {
    task_.actor = PartOf(model.actor, model.actor_unit, model.num_log_stds());
    task_.critic = PartOf(model.critic, model.critic_unit, 0);
    task_.observation_size = static_cast<int32_t>(model.observation_size());
    task_.action_size = static_cast<int32_t>(model.action_size());
    task_.discrete = model.discrete() ? 1 : 0;
    std::copy(model.num_choices.begin(), model.num_choices.end(), task_.num_choices);
    task_.surrogate = SurrogateKind(config_);
    task_.clip_epsilon = config_.clip_epsilon();
    task_.value_clip = config_.value_clip();
    task_.value_coefficient = config_.value_coefficient();
    task_.entropy_coefficient = config_.entropy_coefficient();
    task_.max_kl = config_.max_kl();
    task_.max_gradient_norm = config_.max_gradient_norm();
    task_.adam_epsilon = static_cast<float>(config_.adam_epsilon());
  }

  // What does not depend on the batches.
  absl::Status Open() {
    task_.tile_rows = kMostTileRows;
    while (PpoSharedBytes(task_, task_.tile_rows) > machine_->shared_bytes()) {
      if (task_.tile_rows == 1) {
        return absl::UnimplementedError(
            "the fused engine of PPO does not compute layers this wide on this device");
      }
      task_.tile_rows /= 2;
    }
    const int64_t size = task_.actor.size + task_.critic.size;
    task_.sum_blocks =
        static_cast<int32_t>(std::clamp<int64_t>(size / machine_->threads(), 1, kMostSumBlocks));
    absl::Status status;
    for (PpoPart* part : {&task_.actor, &task_.critic}) {
      for (float** floats : {&part->values, &part->m, &part->v}) {
        status.Update(Reserve(part->size, floats));
      }
    }
    status.Update(Reserve(PpoSharedFloats(task_), &task_.actor.gradient));
    task_.critic.gradient = task_.actor.gradient + task_.actor.size;
    task_.sums = task_.critic.gradient + task_.critic.size;
    status.Update(Reserve(task_.sum_blocks, &task_.squares));
    status.Update(Reserve(1, &run_));
    status.Update(Reserve(1, &task_.outcome));
    task_.run = run_;
    return status.ok() ? machine_->Begin(task_) : status;
  }

  absl::Status Load(const DescendedFloats& actor, const DescendedFloats& critic) override {
    actor_steps_ = actor.steps;
    critic_steps_ = critic.steps;
    absl::Status status = LoadPart(actor, task_.actor);
    status.Update(LoadPart(critic, task_.critic));
    return status;
  }

  absl::Status Store(DescendedFloats& actor, DescendedFloats& critic) const override {
    actor.steps = actor_steps_;
    critic.steps = critic_steps_;
    absl::Status status = StorePart(task_.actor, actor);
    status.Update(StorePart(task_.critic, critic));
    return status;
  }

  absl::StatusOr<PpoProgress> Improve(const PpoStepArrays& steps, const PpoSchedule& schedule,
                                      double learning_rate) override {
    absl::Status status = ReserveFor(schedule);
    if (status.ok()) status = UploadWholes(steps, schedule);
    if (status.ok()) status = UploadBatch(steps, schedule, learning_rate);
    if (status.ok()) status = machine_->RunEpochs(task_, schedule.epochs, schedule.minibatches);
    PpoOutcome outcome;
    if (status.ok()) status = machine_->Download(task_.outcome, sizeof(outcome), &outcome);
    if (!status.ok()) return status;
    actor_steps_ += outcome.steps;
    critic_steps_ += outcome.steps;
    return PpoProgress{.steps = outcome.steps,
                       .last_epoch_steps = outcome.last_epoch_steps,
                       .surrogate = outcome.sums[kSurrogateSum],
                       .value_loss = outcome.sums[kValueLossSum],
                       .kl = outcome.sums[kKlSum],
                       .clip_fraction = outcome.sums[kClippedSum],
                       .entropy = outcome.sums[kEntropySum]};
  }

 private:
  template <typename T>
  absl::Status Reserve(int64_t n, T** to) {
    const absl::StatusOr<void*> memory = machine_->Allocate(n * static_cast<int64_t>(sizeof(T)));
    if (!memory.ok()) return memory.status();
    *to = static_cast<T*>(*memory);
    return absl::OkStatus();
  }

  // Of any rank's batch.
  absl::StatusOr<int64_t> MostRows(const PpoSchedule& schedule) const {
    if (ranks_ == nullptr) return schedule.rows;
    const absl::StatusOr<int64_t> least = ranks_->Least(-schedule.rows);
    return least.ok() ? absl::StatusOr<int64_t>(-*least) : least;
  }

  // Room for a batch, and parts of a minibatch's gradient for as many blocks as it keeps busy; at
  // every rank as much, so that all make their graphs anew together.
  absl::Status ReserveFor(const PpoSchedule& schedule) {
    const absl::StatusOr<int64_t> most = MostRows(schedule);
    if (!most.ok()) return most.status();
    absl::Status status;
    if (*most > rows_) {
      rows_ = *most;
      status.Update(Reserve(rows_ * task_.observation_size, &s_));
      status.Update(Reserve(rows_ * task_.action_size, &a_));
      for (float** floats : {&log_mu_, &advantage_, &target_, &v_old_}) {
        status.Update(Reserve(rows_, floats));
      }
    }
    if (schedule.epochs * *most > order_size_) {
      order_size_ = schedule.epochs * *most;
      status.Update(Reserve(order_size_, &order_on_machine_));
    }
    if (schedule.epochs * schedule.minibatches > wholes_size_) {
      wholes_size_ = schedule.epochs * schedule.minibatches;
      status.Update(Reserve(wholes_size_, &wholes_on_machine_));
    }
    const int64_t most_rows = (*most + schedule.minibatches - 1) / schedule.minibatches;
    const auto blocks = static_cast<int32_t>(
        std::min<int64_t>((most_rows + task_.tile_rows - 1) / task_.tile_rows, kMostRowBlocks));
    if (blocks > task_.row_blocks) {
      task_.row_blocks = blocks;
      for (PpoPart* part : {&task_.actor, &task_.critic}) {
        status.Update(Reserve(int64_t{blocks} * part->size, &part->partial));
      }
      status.Update(Reserve(int64_t{blocks} * kNumPpoSums, &task_.row_sums));
    }
    task_.s = s_, task_.a = a_, task_.log_mu = log_mu_, task_.advantage = advantage_;
    task_.target = target_, task_.v_old = v_old_, task_.order = order_on_machine_;
    task_.wholes = wholes_on_machine_;
    return status;
  }

  // What is to be known of all epochs' minibatches.
  absl::Status UploadWholes(const PpoStepArrays& steps, const PpoSchedule& schedule) {
    std::vector<float> advantages(schedule.order.size());
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < advantages.size(); ++i) {
      advantages[i] = steps.advantage[schedule.order[i]];
    }
    for (int64_t epoch = 0; epoch < schedule.epochs; ++epoch) {
      for (int64_t i = 0; i < schedule.minibatches; ++i) {
        sizes.push_back(static_cast<int64_t>(schedule.Minibatch(epoch, i).size()));
      }
    }
    const auto wholes = LookAtMinibatches(config_, advantages, sizes, ranks_);
    if (!wholes.ok()) return wholes.status();
    return machine_->Upload(wholes->data(),
                            static_cast<int64_t>(wholes->size() * sizeof(WholeMinibatch)),
                            wholes_on_machine_);
  }

  absl::Status UploadBatch(const PpoStepArrays& steps, const PpoSchedule& schedule,
                           double learning_rate) {
    const auto upload = [&](const auto* from, int64_t n, void* to) {
      return machine_->Upload(from, n * static_cast<int64_t>(sizeof(*from)), to);
    };
    const int64_t n = schedule.rows;
    order_.assign(schedule.order.begin(), schedule.order.end());
    absl::Status status = upload(steps.s, n * task_.observation_size, s_);
    status.Update(upload(steps.a, n * task_.action_size, a_));
    status.Update(upload(steps.log_mu, n, log_mu_));
    status.Update(upload(steps.advantage, n, advantage_));
    status.Update(upload(steps.target, n, target_));
    status.Update(upload(steps.v_old, n, v_old_));
    status.Update(upload(order_.data(), static_cast<int64_t>(order_.size()), order_on_machine_));
    const PpoRun run{.rows = n,
                     .minibatches = schedule.minibatches,
                     .actor_steps = actor_steps_,
                     .critic_steps = critic_steps_,
                     .learning_rate = static_cast<float>(learning_rate)};
    const PpoOutcome nothing_yet;
    status.Update(upload(&run, 1, run_));
    status.Update(upload(&nothing_yet, 1, task_.outcome));
    return status;
  }

  absl::Status LoadPart(const DescendedFloats& from, const PpoPart& part) {
    const int64_t bytes = part.size * static_cast<int64_t>(sizeof(float));
    absl::Status status = machine_->Upload(from.values, bytes, part.values);
    status.Update(machine_->Upload(from.m, bytes, part.m));
    status.Update(machine_->Upload(from.v, bytes, part.v));
    return status;
  }

  absl::Status StorePart(const PpoPart& part, const DescendedFloats& to) const {
    const int64_t bytes = part.size * static_cast<int64_t>(sizeof(float));
    absl::Status status = machine_->Download(part.values, bytes, to.values);
    status.Update(machine_->Download(part.m, bytes, to.m));
    status.Update(machine_->Download(part.v, bytes, to.v));
    return status;
  }

  const proto::Ppo config_;
  RankGroup* const ranks_;
  const std::unique_ptr<PpoMachine> machine_;
  PpoTask task_;
  int64_t actor_steps_ = 0, critic_steps_ = 0;
  // On the machine, with room for so many rows, so long an order, so many minibatches.
  int64_t rows_ = 0, order_size_ = 0, wholes_size_ = 0;
  float *s_ = nullptr, *a_ = nullptr, *log_mu_ = nullptr, *advantage_ = nullptr, *target_ = nullptr,
        *v_old_ = nullptr;
  int32_t* order_on_machine_ = nullptr;
  WholeMinibatch* wholes_on_machine_ = nullptr;
  PpoRun* run_ = nullptr;
  std::vector<int32_t> order_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PpoEngine>> MakeBlockPpoEngine(const PpoModel& model,
                                                              std::unique_ptr<PpoMachine> machine,
                                                              RankGroup* ranks) {
  if (model.actor.layers.size() > kMaxPpoLayers || model.critic.layers.size() > kMaxPpoLayers) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine of PPO does not compute more than ", kMaxPpoLayers,
                     " layers on this device"));
  }
  if (model.num_choices.size() > kMaxPpoElements) {
    return absl::UnimplementedError(
        absl::StrCat("the fused engine of PPO does not compute actions of more than ",
                     kMaxPpoElements, " choices on this device"));
  }
  auto engine = std::make_unique<BlockPpoEngine>(model, std::move(machine), ranks);
  if (absl::Status status = engine->Open(); !status.ok()) return status;
  return std::unique_ptr<PpoEngine>(std::move(engine));
}

}  // namespace troupe
