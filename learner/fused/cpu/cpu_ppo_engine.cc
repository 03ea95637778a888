#include "learner/fused/cpu/cpu_ppo_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "learner/fused/cpu/padded_mlp.h"
#include "learner/fused/cpu/thread_team.h"
#include "learner/ppo_gradient.h"
#include "learner/whole_minibatches.h"

namespace troupe::cpu {
namespace {

// Rows that pass through all layers together, so that what they leave behind stays in the cache.
constexpr int64_t kBlockRows = 128;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999;

Unit UnitOf(HiddenUnit unit) {
  if (unit == HiddenUnit::kRelu) return Unit::kRelu;
  return unit == HiddenUnit::kTanh ? Unit::kTanh : Unit::kElu;
}

// A network with all that is learned of it, and `more` parameters behind its own.
struct Part {
  PaddedMlp mlp;
  int64_t flat_size, more;
  AlignedFloats values, m, v, gradient, transposed;
  MlpBlock block;
  AlignedFloats s;  // the rows' inputs
  int64_t adam_steps = 0;

  Part(const FlatNetwork& network, HiddenUnit unit, const Kernels& kernels, int64_t more_parameters)
      : mlp(network, UnitOf(unit), kernels, /*first_wanted_input=*/network.layers[0].k),
        flat_size(network.size),
        more(more_parameters),
        values(mlp.size() + more),
        m(values.size()),
        v(values.size()),
        gradient(values.size()),
        transposed(mlp.transposed_size()),
        block(mlp, kBlockRows),
        s(kBlockRows * RoomFor(network.layers[0].k)) {}

  float* behind(AlignedFloats& padded) const { return padded.data() + mlp.size(); }

  void Load(const DescendedFloats& from) {
    const auto load = [&](const float* flat, AlignedFloats& padded) {
      mlp.Pack(flat, 0, padded.data());
      std::copy_n(flat + flat_size, more, behind(padded));
    };
    load(from.values, values);
    load(from.m, m);
    load(from.v, v);
    adam_steps = from.steps;
    mlp.Transpose(values.data(), 0, 1, transposed.data());
  }

  void Store(DescendedFloats& to) const {
    const auto store = [&](const AlignedFloats& padded, float* flat) {
      mlp.Unpack(padded.data(), 0, flat);
      std::copy_n(padded.data() + mlp.size(), more, flat + flat_size);
    };
    store(values, to.values);
    store(m, to.m);
    store(v, to.v);
    to.steps = adam_steps;
  }
};

class CpuPpoEngine final : public PpoEngine {
 public:
  CpuPpoEngine(const PpoModel& model, int num_threads, RankGroup* ranks, const Kernels& kernels)
      : config_(model.config),
        kernels_(kernels),
        ranks_(ranks),
        num_choices_(model.num_choices),
        observation_size_(model.observation_size()),
        action_size_(model.action_size()),
        actor_(model.actor, model.actor_unit, kernels, model.num_log_stds()),
        critic_(model.critic, model.critic_unit, kernels, 0),
        team_(std::min(num_threads, 2)),
        a_(kBlockRows * action_size_),
        log_mu_(kBlockRows),
        advantage_(kBlockRows),
        target_(kBlockRows),
        v_old_(kBlockRows),
        shared_(ranks == nullptr ? 0 : actor_.gradient.size() + critic_.gradient.size() + 5) {}

  absl::Status Load(const DescendedFloats& actor, const DescendedFloats& critic) override {
    actor_.Load(actor);
    critic_.Load(critic);
    return absl::OkStatus();
  }
  absl::Status Store(DescendedFloats& actor, DescendedFloats& critic) const override {
    actor_.Store(actor);
    critic_.Store(critic);
    return absl::OkStatus();
  }

  absl::StatusOr<PpoProgress> Improve(const PpoStepArrays& steps, const PpoSchedule& schedule,
                                      double learning_rate) override {
    progress_ = {};
    status_ = absl::OkStatus();
    team_.Run([&](int thread) { ImproveOn(thread, steps, schedule, learning_rate); });
    if (!status_.ok()) return status_;
    return progress_;
  }

 private:
  // What each thread of the team does.
  void ImproveOn(int thread, const PpoStepArrays& steps, const PpoSchedule& schedule,
                 double learning_rate);
  // A thread's part of one gradient step on these rows of `steps`, whose loss is that of `turn`;
  // false and none if the KL is above max_kl, or a rank is gone.
  bool StepOn(int thread, const PpoStepArrays& steps, absl::Span<const int64_t> rows,
              const WholeMinibatch& whole, double learning_rate, int turn);
  // Fills wholes_ for an epoch's minibatches.
  absl::Status LookAt(const PpoStepArrays& steps, const PpoSchedule& schedule, int64_t epoch);
  // Replaces gradient and loss by their sums over the ranks.
  absl::Status SumOverRanks(int turn);
  void AddLoss(int turn);
  void GatherInputs(const PpoStepArrays& steps, absl::Span<const int64_t> rows, Part& part) const;
  InputRows InputsOf(const Part& part, int64_t rows) const {
    return {part.s.data(), RoomFor(observation_size_), rows};
  }
  // The gradient of a minibatch by a part's parameters.
  void DifferentiateActor(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                          const WholeMinibatch& whole, PpoLoss& loss);
  void DifferentiateCritic(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                           const WholeMinibatch& whole, PpoLoss& loss);
  void Backward(Part& part, int64_t rows, bool add);
  float ClipFactor(int turn) const;
  double SquaresOf(const Part& part) const;
  void Descend(Part& part, float gradient_scale, double learning_rate);
  // Thread 0 has the actor, and the last one the critic.
  bool HasCritic(int thread) const { return thread == team_.size() - 1; }

  const proto::Ppo config_;
  const Kernels& kernels_;
  RankGroup* const ranks_;
  const std::vector<int64_t> num_choices_;
  const int64_t observation_size_, action_size_;
  Part actor_, critic_;
  ThreadTeam team_;
  // Of the block that is worked on.
  AlignedFloats a_, log_mu_, advantage_, target_, v_old_;
  // Of the epoch that is under way, in its order.
  std::vector<float> advantages_;
  std::vector<int64_t> sizes_;
  std::vector<WholeMinibatch> wholes_;
  std::vector<float> shared_;  // what is summed over the ranks
  // Of a minibatch and the one before, which the other thread may still read: the actor's loss, the
  // critic's, and the gradients' squares.
  PpoLoss losses_[2], value_losses_[2];
  double squares_of_actor_[2] = {}, squares_of_critic_[2] = {};
  // Written by thread 0 while the other one waits.
  PpoProgress progress_;
  absl::Status status_;
};

void CpuPpoEngine::ImproveOn(int thread, const PpoStepArrays& steps, const PpoSchedule& schedule,
                             double learning_rate) {
  int turn = 0;
  bool near = true;
  for (int64_t epoch = 0; epoch < schedule.epochs && near; ++epoch) {
    team_.Barrier();
    if (thread == 0) {
      progress_ = {.steps = progress_.steps};
      status_ = LookAt(steps, schedule, epoch);
    }
    team_.Barrier();
    near = status_.ok();
    for (int64_t i = 0; i < schedule.minibatches && near; ++i) {
      turn = 1 - turn;
      near = StepOn(thread, steps, schedule.Minibatch(epoch, i), wholes_[i], learning_rate, turn);
      if (thread == 0 && near) AddLoss(turn);
    }
  }
}

absl::Status CpuPpoEngine::LookAt(const PpoStepArrays& steps, const PpoSchedule& schedule,
                                  int64_t epoch) {
  advantages_.resize(schedule.rows);
  sizes_.resize(schedule.minibatches);
  const int64_t* const order = schedule.order.data() + epoch * schedule.rows;
  for (int64_t i = 0; i < schedule.rows; ++i) advantages_[i] = steps.advantage[order[i]];
  for (int64_t i = 0; i < schedule.minibatches; ++i) {
    sizes_[i] = static_cast<int64_t>(schedule.Minibatch(epoch, i).size());
  }
  absl::StatusOr<std::vector<WholeMinibatch>> wholes =
      LookAtMinibatches(config_, advantages_, sizes_, ranks_);
  if (!wholes.ok()) return wholes.status();
  wholes_ = *std::move(wholes);
  return absl::OkStatus();
}

absl::Status CpuPpoEngine::SumOverRanks(int turn) {
  PpoLoss& loss = losses_[turn];
  double unshared = 0;  // a Gaussian's entropy depends on no rows
  double* const losses[] = {&loss.surrogate, &value_losses_[turn].value_loss, &loss.kl,
                            &loss.clip_fraction, num_choices_.empty() ? &unshared : &loss.entropy};
  float* to = shared_.data();
  for (const Part* part : {&actor_, &critic_}) {
    to = std::copy_n(part->gradient.data(), part->gradient.size(), to);
  }
  for (const double* each : losses) *to++ = static_cast<float>(*each);
  absl::Status status = ranks_->Sum(absl::MakeSpan(shared_));
  if (!status.ok()) return status;
  const float* from = shared_.data();
  for (Part* part : {&actor_, &critic_}) {
    std::copy_n(from, part->gradient.size(), part->gradient.data());
    from += part->gradient.size();
  }
  for (double* each : losses) *each = *from++;
  squares_of_actor_[turn] = SquaresOf(actor_);
  squares_of_critic_[turn] = SquaresOf(critic_);
  return absl::OkStatus();
}

bool CpuPpoEngine::StepOn(int thread, const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                          const WholeMinibatch& whole, double learning_rate, int turn) {
  if (thread == 0) {
    DifferentiateActor(steps, rows, whole, losses_[turn]);
    squares_of_actor_[turn] = SquaresOf(actor_);
  }
  if (HasCritic(thread)) {
    DifferentiateCritic(steps, rows, whole, value_losses_[turn]);
    squares_of_critic_[turn] = SquaresOf(critic_);
  }
  team_.Barrier();
  if (ranks_ != nullptr) {
    if (thread == 0) status_ = SumOverRanks(turn);
    team_.Barrier();
    if (!status_.ok()) return false;
  }
  if (config_.max_kl() > 0 && losses_[turn].kl > config_.max_kl()) return false;
  const float factor = ClipFactor(turn);
  if (thread == 0) Descend(actor_, factor, learning_rate);
  if (HasCritic(thread)) Descend(critic_, factor, learning_rate);
  return true;
}

void CpuPpoEngine::AddLoss(int turn) {
  const PpoLoss& loss = losses_[turn];
  ++progress_.steps;
  ++progress_.last_epoch_steps;
  progress_.surrogate += loss.surrogate;
  progress_.value_loss += value_losses_[turn].value_loss;
  progress_.kl += loss.kl;
  progress_.clip_fraction += loss.clip_fraction;
  progress_.entropy += loss.entropy;
}

void CpuPpoEngine::GatherInputs(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                                Part& part) const {
  const int64_t stride = RoomFor(observation_size_);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(steps.s + rows[i] * observation_size_, observation_size_,
                part.s.data() + i * stride);
  }
}

void CpuPpoEngine::Backward(Part& part, int64_t rows, bool add) {
  part.mlp.Backward(part.values.data(), part.transposed.data(), rows, nullptr, part.block);
  part.mlp.ParameterGradient(InputsOf(part, rows), part.block, add, part.gradient.data());
}

void CpuPpoEngine::DifferentiateActor(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                                      const WholeMinibatch& whole, PpoLoss& loss) {
  const auto n = static_cast<int64_t>(rows.size());
  const double share = static_cast<double>(n) / static_cast<double>(whole.rows);
  BeginPpoLoss(config_, actor_.behind(actor_.values), actor_.more, share, loss);
  for (int64_t begin = 0; begin < n; begin += kBlockRows) {
    const absl::Span<const int64_t> block = rows.subspan(begin, kBlockRows);
    const auto count = static_cast<int64_t>(block.size());
    GatherInputs(steps, block, actor_);
    for (int64_t i = 0; i < count; ++i) {
      std::copy_n(steps.a + block[i] * action_size_, action_size_, a_.data() + i * action_size_);
      log_mu_[i] = steps.log_mu[block[i]];
      advantage_[i] = steps.advantage[block[i]];
    }
    actor_.mlp.Forward(actor_.values.data(), InputsOf(actor_, count), actor_.block);
    const PpoPolicyRows x{.rows = count,
                          .action_size = action_size_,
                          .head = actor_.block.output.data(),
                          .head_stride = actor_.mlp.output_stride(),
                          .a = a_.data(),
                          .log_mu = log_mu_.data(),
                          .advantage = advantage_.data()};
    float* const gradient = actor_.block.output_gradient.data();
    if (num_choices_.empty()) {
      AddGaussianRows(config_, x, whole.scale, whole.rows, gradient, loss);
    } else {
      AddChoiceRows(config_, num_choices_, x, whole.scale, whole.rows, gradient, loss);
    }
    Backward(actor_, count, /*add=*/begin > 0);
  }
  std::copy(loss.log_std.begin(), loss.log_std.end(), actor_.behind(actor_.gradient));
}

void CpuPpoEngine::DifferentiateCritic(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                                       const WholeMinibatch& whole, PpoLoss& loss) {
  const auto n = static_cast<int64_t>(rows.size());
  loss.value_loss = 0;
  for (int64_t begin = 0; begin < n; begin += kBlockRows) {
    const absl::Span<const int64_t> block = rows.subspan(begin, kBlockRows);
    const auto count = static_cast<int64_t>(block.size());
    GatherInputs(steps, block, critic_);
    for (int64_t i = 0; i < count; ++i) {
      target_[i] = steps.target[block[i]];
      v_old_[i] = steps.v_old[block[i]];
    }
    critic_.mlp.Forward(critic_.values.data(), InputsOf(critic_, count), critic_.block);
    AddValueRows(config_,
                 {.rows = count,
                  .v = critic_.block.output.data(),
                  .target = target_.data(),
                  .v_old = v_old_.data()},
                 whole.rows, critic_.block.output_gradient.data(), loss);
    Backward(critic_, count, /*add=*/begin > 0);
  }
}

// 0 where nobody asks.
double CpuPpoEngine::SquaresOf(const Part& part) const {
  if (config_.max_gradient_norm() <= 0) return 0;
  return kernels_.sum_squares(part.gradient.data(), part.gradient.size());
}

// What the gradients are multiplied by, so that their norm is at most max_gradient_norm.
float CpuPpoEngine::ClipFactor(int turn) const {
  const double most = config_.max_gradient_norm();
  if (most <= 0) return 1;
  const double norm = std::sqrt(squares_of_actor_[turn] + squares_of_critic_[turn]);
  return norm <= most ? 1 : static_cast<float>(most / (norm + 1e-6));
}

void CpuPpoEngine::Descend(Part& part, float gradient_scale, double learning_rate) {
  const auto t = static_cast<double>(++part.adam_steps);
  float* const gradient = part.gradient.data();
  kernels_.adam({.n = part.values.size(),
                 .gradients = &gradient,
                 .gradient_scale = gradient_scale,
                 .values = part.values.data(),
                 .m = part.m.data(),
                 .v = part.v.data(),
                 .rate = static_cast<float>(learning_rate / (1 - std::pow(kBeta1, t))),
                 .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(kBeta2, t))),
                 .epsilon = static_cast<float>(config_.adam_epsilon())});
  part.mlp.Transpose(part.values.data(), 0, 1, part.transposed.data());
}

}  // namespace
}  // namespace troupe::cpu

namespace troupe {

std::unique_ptr<PpoEngine> MakeCpuPpoEngine(const PpoModel& model, int num_threads,
                                            RankGroup* ranks, const cpu::Kernels& kernels) {
  return std::make_unique<cpu::CpuPpoEngine>(model, num_threads, ranks, kernels);
}

}  // namespace troupe
