#ifndef TROUPE_ACTOR_ENVS_CLASSIC_ENV_H_
#define TROUPE_ACTOR_ENVS_CLASSIC_ENV_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/envs/random.h"
#include "actor/envs/task.h"
#include "proto/config.pb.h"

namespace troupe {

inline constexpr int kMaxClassicObservation = 6;

// State of a classic control task; the task says how many of the numbers it uses.
using ClassicState = std::array<double, 4>;

// One classic control task: a row of the table, with the formulas that make it different.
struct ClassicTask {
  Task task;
  int state_size = 0;
  int observation_size = 0;  // of all elements
  // Which of them are velocities.
  std::array<bool, kMaxClassicObservation> is_velocity{};
  // Continuous tasks: one action within +- max_action.  Discrete ones: num_choices.
  double max_action = 0;
  int num_choices = 0;

  ClassicState (*start)(Random*) = nullptr;
  // Moves `state` by one time step. `action`: for discrete tasks a whole number below num_choices.
  StepResult (*step)(const proto::Environment& options, double action,
                     ClassicState* state) = nullptr;
  void (*observe)(const ClassicState& state, absl::Span<double> observation) = nullptr;
};

// All tasks, sorted by id.
absl::Span<const ClassicTask> ClassicTasks();

// Any classic control task.  Observations are rounded to float32, as Gymnasium's are.
// Never truncates.  Not thread-safe.
class ClassicEnv final : public Env {
 public:
  // `options`: every keyword of the task is set.
  ClassicEnv(const ClassicTask& task, const proto::Environment& options);

  const EnvSpec& spec() const override { return spec_; }
  void Reset(uint64_t seed, absl::Span<double> observation) override;
  StepResult Step(absl::Span<const double> action, absl::Span<double> observation) override;
  absl::Status ResetToState(absl::Span<const double> state,
                            absl::Span<double> observation) override;

 private:
  bool IsHidden(int element) const {
    return options_.hide_velocities() && task_.is_velocity[element];
  }
  void Observe(absl::Span<double> observation) const;

  // Constant after construction.
  const ClassicTask& task_;
  const proto::Environment options_;
  EnvSpec spec_;

  ClassicState state_{};
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_CLASSIC_ENV_H_
