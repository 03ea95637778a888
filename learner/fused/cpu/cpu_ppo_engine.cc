#include "learner/fused/cpu/cpu_ppo_engine.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "learner/fused/cpu/padded_mlp.h"
#include "learner/ppo_gradient.h"

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
        block(mlp, kBlockRows) {}

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

// What is to be known of a minibatch as a whole, the parts of other ranks included.
struct WholeMinibatch {
  int64_t rows = 0;
  AdvantageScale scale;
};

class CpuPpoEngine final : public PpoEngine {
 public:
  CpuPpoEngine(const PpoModel& model, RankGroup* ranks, const Kernels& kernels)
      : config_(model.config),
        kernels_(kernels),
        ranks_(ranks),
        observation_size_(model.observation_size()),
        action_size_(model.action_size()),
        actor_(model.actor, model.actor_unit, kernels, action_size_),
        critic_(model.critic, model.critic_unit, kernels, 0),
        s_(kBlockRows * RoomFor(observation_size_)),
        a_(kBlockRows * action_size_),
        log_mu_(kBlockRows),
        advantage_(kBlockRows),
        target_(kBlockRows),
        v_old_(kBlockRows),
        shared_(ranks == nullptr ? 0 : actor_.gradient.size() + critic_.gradient.size() + 4) {}

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
    PpoProgress progress;
    bool near = true;
    for (int64_t epoch = 0; epoch < schedule.epochs && near; ++epoch) {
      progress = {.steps = progress.steps};
      if (absl::Status status = LookAt(steps, schedule, epoch); !status.ok()) return status;
      for (int64_t i = 0; i < schedule.minibatches && near; ++i) {
        const absl::StatusOr<bool> taken =
            Step(steps, schedule.Minibatch(epoch, i), wholes_[i], learning_rate);
        if (!taken.ok()) return taken.status();
        near = *taken;
        if (near) AddLoss(progress);
      }
    }
    return progress;
  }

 private:
  // One gradient step on these rows of `steps`, of which loss_ is the loss; false and none if the
  // KL is above max_kl.
  absl::StatusOr<bool> Step(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                            const WholeMinibatch& whole, double learning_rate);
  // Fills wholes_ for an epoch's minibatches.
  absl::Status LookAt(const PpoStepArrays& steps, const PpoSchedule& schedule, int64_t epoch);
  absl::Status LookAtAllRanks();
  // Replaces gradient and loss by their sums over the ranks.
  absl::Status SumOverRanks();
  void AddLoss(PpoProgress& progress) const;
  void Gather(const PpoStepArrays& steps, absl::Span<const int64_t> rows);
  // Adds the gradient of a block, which is the first of its minibatch or not.
  void Differentiate(int64_t rows, int64_t minibatch_size, const AdvantageScale& scale, bool first);
  float ClipFactor() const;
  void Descend(Part& part, float gradient_scale, double learning_rate);

  const proto::Ppo config_;
  const Kernels& kernels_;
  RankGroup* const ranks_;
  const int64_t observation_size_, action_size_;
  Part actor_, critic_;
  // Of the block that is worked on.
  AlignedFloats s_, a_, log_mu_, advantage_, target_, v_old_;
  // Of the epoch that is under way, in its order.
  std::vector<float> advantages_;
  std::vector<WholeMinibatch> wholes_;
  std::vector<float> shared_;  // what is summed over the ranks
  PpoLoss loss_;
};

absl::Status CpuPpoEngine::LookAt(const PpoStepArrays& steps, const PpoSchedule& schedule,
                                  int64_t epoch) {
  wholes_.resize(schedule.minibatches);
  advantages_.resize(schedule.rows);
  const int64_t* const order = schedule.order.data() + epoch * schedule.rows;
  for (int64_t i = 0; i < schedule.rows; ++i) advantages_[i] = steps.advantage[order[i]];
  const float* advantage = advantages_.data();
  for (int64_t i = 0; i < schedule.minibatches; ++i) {
    const auto rows = static_cast<int64_t>(schedule.Minibatch(epoch, i).size());
    wholes_[i] = {rows, ranks_ == nullptr ? ScaleOf(config_, advantage, rows) : AdvantageScale()};
    advantage += rows;
  }
  return ranks_ == nullptr ? absl::OkStatus() : LookAtAllRanks();
}

absl::Status CpuPpoEngine::LookAtAllRanks() {
  const size_t count = wholes_.size();
  std::vector<double> sums(2 * count), squares(count);
  const float* advantage = advantages_.data();
  for (size_t i = 0; i < count; ++i) {
    sums[count + i] = static_cast<double>(wholes_[i].rows);
    for (int64_t row = 0; row < wholes_[i].rows; ++row) sums[i] += *advantage++;
  }
  absl::Status status = ranks_->Sum(absl::MakeSpan(sums));
  if (!status.ok()) return status;
  advantage = advantages_.data();
  for (size_t i = 0; i < count; ++i) {
    const double mean = sums[i] / sums[count + i];
    for (int64_t row = 0; row < wholes_[i].rows; ++row, ++advantage) {
      squares[i] += (*advantage - mean) * (*advantage - mean);
    }
  }
  if (status = ranks_->Sum(absl::MakeSpan(squares)); !status.ok()) return status;
  for (size_t i = 0; i < count; ++i) {
    wholes_[i].rows = std::llround(sums[count + i]);
    wholes_[i].scale = ScaleOf(config_, wholes_[i].rows, sums[i], squares[i]);
  }
  return absl::OkStatus();
}

absl::Status CpuPpoEngine::SumOverRanks() {
  if (ranks_ == nullptr) return absl::OkStatus();
  double* const losses[] = {&loss_.surrogate, &loss_.value_loss, &loss_.kl, &loss_.clip_fraction};
  float* to = shared_.data();
  for (const Part* part : {&actor_, &critic_}) {
    to = std::copy_n(part->gradient.data(), part->gradient.size(), to);
  }
  for (const double* loss : losses) *to++ = static_cast<float>(*loss);
  absl::Status status = ranks_->Sum(absl::MakeSpan(shared_));
  if (!status.ok()) return status;
  const float* from = shared_.data();
  for (Part* part : {&actor_, &critic_}) {
    std::copy_n(from, part->gradient.size(), part->gradient.data());
    from += part->gradient.size();
  }
  for (double* loss : losses) *loss = *from++;
  return absl::OkStatus();
}

absl::StatusOr<bool> CpuPpoEngine::Step(const PpoStepArrays& steps, absl::Span<const int64_t> rows,
                                        const WholeMinibatch& whole, double learning_rate) {
  const auto n = static_cast<int64_t>(rows.size());
  const double share = static_cast<double>(n) / static_cast<double>(whole.rows);
  BeginPpoLoss(config_, actor_.behind(actor_.values), action_size_, share, loss_);
  for (int64_t begin = 0; begin < n; begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, n - begin);
    Gather(steps, rows.subspan(begin, count));
    Differentiate(count, whole.rows, whole.scale, begin == 0);
  }
  std::copy(loss_.log_std.begin(), loss_.log_std.end(), actor_.behind(actor_.gradient));
  if (absl::Status status = SumOverRanks(); !status.ok()) return status;
  if (config_.max_kl() > 0 && loss_.kl > config_.max_kl()) return false;
  const float factor = ClipFactor();
  Descend(actor_, factor, learning_rate);
  Descend(critic_, factor, learning_rate);
  return true;
}

void CpuPpoEngine::AddLoss(PpoProgress& progress) const {
  ++progress.steps;
  ++progress.last_epoch_steps;
  progress.surrogate += loss_.surrogate;
  progress.value_loss += loss_.value_loss;
  progress.kl += loss_.kl;
  progress.clip_fraction += loss_.clip_fraction;
  progress.entropy += loss_.entropy;
}

void CpuPpoEngine::Gather(const PpoStepArrays& steps, absl::Span<const int64_t> rows) {
  const int64_t stride = RoomFor(observation_size_);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = rows[i];
    std::copy_n(steps.s + row * observation_size_, observation_size_, s_.data() + i * stride);
    std::copy_n(steps.a + row * action_size_, action_size_, a_.data() + i * action_size_);
    log_mu_[i] = steps.log_mu[row];
    advantage_[i] = steps.advantage[row];
    target_[i] = steps.target[row];
    v_old_[i] = steps.v_old[row];
  }
}

void CpuPpoEngine::Differentiate(int64_t rows, int64_t minibatch_size, const AdvantageScale& scale,
                                 bool first) {
  const InputRows s{s_.data(), RoomFor(observation_size_), rows};
  actor_.mlp.Forward(actor_.values.data(), s, actor_.block);
  critic_.mlp.Forward(critic_.values.data(), s, critic_.block);
  AddPpoRows(
      config_,
      {.rows = rows,
       .action_size = action_size_,
       .mean = actor_.block.output.data(),
       .mean_stride = actor_.mlp.output_stride(),
       .v = critic_.block.output.data(),
       .a = a_.data(),
       .log_mu = log_mu_.data(),
       .advantage = advantage_.data(),
       .target = target_.data(),
       .v_old = v_old_.data()},
      scale, minibatch_size,
      {.mean = actor_.block.output_gradient.data(), .v = critic_.block.output_gradient.data()},
      loss_);
  for (Part* part : {&actor_, &critic_}) {
    part->mlp.Backward(part->values.data(), part->transposed.data(), rows, nullptr, part->block);
    part->mlp.ParameterGradient(s, part->block, !first, part->gradient.data());
  }
}

// What the gradients are multiplied by, so that their norm is at most max_gradient_norm.
float CpuPpoEngine::ClipFactor() const {
  const double most = config_.max_gradient_norm();
  if (most <= 0) return 1;
  const double norm =
      std::sqrt(kernels_.sum_squares(actor_.gradient.data(), actor_.gradient.size()) +
                kernels_.sum_squares(critic_.gradient.data(), critic_.gradient.size()));
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

std::unique_ptr<PpoEngine> MakeCpuPpoEngine(const PpoModel& model, RankGroup* ranks,
                                            const cpu::Kernels& kernels) {
  return std::make_unique<cpu::CpuPpoEngine>(model, ranks, kernels);
}

}  // namespace troupe
