#include "actor/envs/classic_env.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// The choice that `action` holds, forced into 0 .. num_choices - 1.
double Choice(double action, int num_choices) {
  if (!(action > 0)) return 0;
  return std::min(std::round(action), num_choices - 1.0);
}

}  // namespace

ClassicEnv::ClassicEnv(const ClassicTask& task, const proto::Environment& options)
    : task_(task), options_(options) {
  spec_.id = std::string(task.task.id);
  for (int i = 0; i < task.observation_size; ++i) spec_.observation_size += !IsHidden(i);
  spec_.action_size = 1;
  if (task.num_choices > 0) {
    spec_.num_choices = {task.num_choices};
  } else {
    spec_.action_low = {-task.max_action};
    spec_.action_high = {task.max_action};
  }
}

void ClassicEnv::Reset(uint64_t seed, absl::Span<double> observation) {
  Random random(seed);
  state_ = task_.start(&random);
  Observe(observation);
}

absl::Status ClassicEnv::ResetToState(absl::Span<const double> state,
                                      absl::Span<double> observation) {
  if (static_cast<int>(state.size()) != task_.state_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the state of ", spec_.id, " has ", task_.state_size, " numbers; got ", state.size()));
  }
  std::copy(state.begin(), state.end(), state_.begin());
  Observe(observation);
  return absl::OkStatus();
}

StepResult ClassicEnv::Step(absl::Span<const double> action, absl::Span<double> observation) {
  const bool discrete = task_.num_choices > 0;
  const double a = discrete ? Choice(action[0], task_.num_choices) : action[0];
  const StepResult result = task_.step(options_, a, &state_);
  Observe(observation);
  return result;
}

void ClassicEnv::Observe(absl::Span<double> observation) const {
  std::array<double, kMaxClassicObservation> elements{};
  task_.observe(state_, absl::MakeSpan(elements));
  double* out = observation.data();
  for (int i = 0; i < task_.observation_size; ++i) {
    if (!IsHidden(i)) *out++ = static_cast<float>(elements[i]);
  }
}

}  // namespace troupe
