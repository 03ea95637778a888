#include "actor/evaluator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "common/recurrence.h"

namespace troupe {

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double StandardDeviation(const std::vector<double>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

Evaluator::Evaluator(std::vector<std::unique_ptr<Env>> envs, uint64_t seed)
    : observation_size_(envs.front()->spec().observation_size),
      action_size_(envs.front()->spec().action_size),
      next_seed_(seed),
      observations_(envs.size() * observation_size_),
      frames_(static_cast<int64_t>(envs.size()), envs.front()->spec().image_bytes),
      actions_(envs.size() * action_size_),
      observation_(observation_size_) {
  for (std::unique_ptr<Env>& env : envs) {
    seats_.push_back({.env = std::move(env), .action = std::vector<double>(action_size_)});
  }
}

void Evaluator::Begin(size_t seat) {
  seats_[seat].episode = begun_++;
  seats_[seat].env->Reset(next_seed_++, absl::MakeSpan(observation_));
  absl::c_copy(observation_, Observation(seat).begin());
  frames_.Begin(seat, seats_[seat].env->images());
  std::fill(Memory(seat).begin(), Memory(seat).end(), 0.0f);
}

void Evaluator::StepSeats(size_t busy, EpisodeResults& results) {
  for (size_t i = 0; i < busy; ++i) {
    std::copy_n(actions_.begin() + i * action_size_, action_size_, seats_[i].action.begin());
    seats_[i].env->BeginStep(seats_[i].action);
  }
  for (size_t i = 0; i < busy; ++i) {
    Seat& seat = seats_[i];
    const StepResult step = seat.env->FinishStep(absl::MakeSpan(observation_));
    absl::c_copy(observation_, Observation(i).begin());
    frames_.Push(i, seat.env->images());
    results.returns[seat.episode] += step.reward;
    results.lengths[seat.episode] += 1;
    if (step.terminated || step.truncated) seat.episode = -1;
  }
}

size_t Evaluator::FillFrontSeats(int64_t episodes) {
  size_t busy = 0;
  for (size_t i = 0; i < seats_.size(); ++i) {
    if (seats_[i].episode < 0 && begun_ < episodes) Begin(i);
    if (seats_[i].episode < 0) continue;
    if (busy != i) {
      std::swap(seats_[busy], seats_[i]);
      absl::c_copy(Observation(i), Observation(busy).begin());
      absl::c_copy(Memory(i), Memory(busy).begin());
      absl::c_copy(frames_.stack(i), frames_.stack(busy).begin());
    }
    ++busy;
  }
  return busy;
}

absl::StatusOr<EpisodeResults> Evaluator::Play(Policy& policy, int64_t episodes,
                                               const std::function<bool()>& stop) {
  EpisodeResults results{std::vector<double>(episodes), std::vector<int64_t>(episodes)};
  begun_ = 0;
  state_size_ = StateSize(policy.metadata().recurrence);
  memory_.assign(seats_.size() * state_size_, 0);
  frames_.SetDepth(policy.metadata().encoder.frame_stack());
  for (Seat& seat : seats_) seat.episode = -1;
  while (const size_t busy = FillFrontSeats(episodes)) {
    if (stop()) return absl::CancelledError("stopped during an evaluation");
    const absl::Span<float> memory = absl::MakeSpan(memory_).first(busy * state_size_);
    absl::Status acted =
        policy.Mode(absl::MakeConstSpan(observations_).first(busy * observation_size_),
                    static_cast<int64_t>(busy), absl::MakeSpan(actions_).first(busy * action_size_),
                    {memory, memory}, frames_.first(busy));
    if (!acted.ok()) return acted;
    StepSeats(busy, results);
  }
  return results;
}

}  // namespace troupe
