#ifndef TROUPE_ACTOR_EVALUATOR_H_
#define TROUPE_ACTOR_EVALUATOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "actor/env.h"
#include "actor/frame_stacks.h"
#include "common/policy.h"

namespace troupe {

// Undiscounted returns and lengths of whole episodes, in the order of their seeds.
struct EpisodeResults {
  std::vector<double> returns;
  std::vector<int64_t> lengths;
};

double Mean(const std::vector<double>& values);
// Population standard deviation.
double StandardDeviation(const std::vector<double>& values);

// Plays whole episodes with the mode of a policy, `envs.size()` at a time in one batched forward.
//
// Every episode that begins is counted, so short episodes weigh no more than long ones.
// Not thread-safe.
class Evaluator final {
 public:
  // `envs` are alike and not empty.  `seed`: of the episodes, apart from any actor's.
  Evaluator(std::vector<std::unique_ptr<Env>> envs, uint64_t seed);

  // Plays `episodes` episodes with fresh seeds.  CANCELLED once `stop` says true.
  absl::StatusOr<EpisodeResults> Play(Policy& policy, int64_t episodes,
                                      const std::function<bool()>& stop);

 private:
  // One environment and the episode it is in.
  struct Seat {
    std::unique_ptr<Env> env;
    std::vector<double> action;  // [action_size]
    int64_t episode = -1;        // index into the results; -1: idle
  };

  // Begins the episodes that are due and moves busy seats to the front, so that a batch holds
  // nothing else.  Returns their number.
  size_t FillFrontSeats(int64_t episodes);
  absl::Span<float> Observation(size_t seat) {
    return absl::MakeSpan(observations_).subspan(seat * observation_size_, observation_size_);
  }
  absl::Span<float> Memory(size_t seat) {
    return absl::MakeSpan(memory_).subspan(seat * state_size_, state_size_);
  }
  void Begin(size_t seat);
  // The first `busy` seats, all at once if they step elsewhere.
  void StepSeats(size_t busy, EpisodeResults& results);

  std::vector<Seat> seats_;
  const int64_t observation_size_;
  const int64_t action_size_;
  uint64_t next_seed_;
  int64_t begun_ = 0;                // episodes of the current Play
  std::vector<float> observations_;  // [seats, observation_size]
  FrameStacks frames_;               // of the seats
  std::vector<float> actions_;       // [seats, action_size]
  int64_t state_size_ = 0;           // of the policy's memory
  std::vector<float> memory_;        // [seats, state_size]
  std::vector<double> observation_;  // [observation_size], scratch
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_EVALUATOR_H_
