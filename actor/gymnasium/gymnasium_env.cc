#include "actor/gymnasium/gymnasium_env.h"

#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actor/all_finite.h"
#include "actor/gymnasium/wait_for_children.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Env>> GymnasiumEnv::Make(const proto::Environment& config) {
  std::unique_ptr<GymnasiumEnv> env(new GymnasiumEnv);
  env->child_ = std::make_unique<EnvChild>(
      EnvChild::Options{.config = config, .num_slots = 1, .name = "an environment"},
      [e = env.get()](int) { return e->seed_; }, &env->faults_);
  while (env->child_->spec() == nullptr || env->child_->num_busy() > 0) {
    if (!env->child_->status().ok()) return env->child_->status();
    env->Listen([](const EnvChild::Event&) {});
  }
  env->last_.resize(env->spec().observation_size);
  env->images_.resize(env->spec().image_bytes);
  return env;
}

GymnasiumEnv::~GymnasiumEnv() = default;

void GymnasiumEnv::Listen(absl::FunctionRef<void(const EnvChild::Event&)> take) {
  if (child_->WakeAfter(1)) WaitForChildren({child_.get()}, absl::InfiniteFuture());
  std::vector<EnvChild::Event> events;
  child_->Collect(absl::Now(), &events);
  for (const EnvChild::Event& event : events) take(event);
}

bool GymnasiumEnv::Await() {
  bool kept = false;
  while (child_->num_busy() > 0) {
    Listen([&](const EnvChild::Event& event) { kept = event.result != EnvChild::Result::kLost; });
  }
  return kept;
}

void GymnasiumEnv::Show(const ObservationView& view, absl::Span<double> observation) {
  absl::c_copy(view.numbers, last_.begin());
  absl::c_copy(view.numbers, observation.begin());
  absl::c_copy(view.images, images_.begin());
}

void GymnasiumEnv::Reset(uint64_t seed, absl::Span<double> observation) {
  seed_ = seed;
  child_->BeginEpisodes();
  Await();  // a child that was replaced has begun an episode, too
  Show(child_->slots().first(0), observation);
}

StepResult GymnasiumEnv::Step(absl::Span<const double> action, absl::Span<double> observation) {
  BeginStep(action);
  return FinishStep(observation);
}

void GymnasiumEnv::BeginStep(absl::Span<const double> action) {
  absl::c_copy(action, child_->slots().action(0).begin());
  child_->Begin({0});
}

StepResult GymnasiumEnv::FinishStep(absl::Span<double> observation) {
  if (!Await()) {
    absl::c_copy(last_, observation.begin());
    return {.truncated = true};
  }
  const SlotHeader& header = child_->slots().header(0);
  const ObservationView last = child_->slots().last(0);
  if (!std::isfinite(header.reward) || !AllFinite(last.numbers)) {
    child_->Reject(0, "gave numbers that are not finite");
    return FinishStep(observation);
  }
  Show(last, observation);
  return {header.reward, (header.ended & SlotHeader::kTerminated) != 0,
          (header.ended & SlotHeader::kTruncated) != 0};
}

absl::Status GymnasiumEnv::ResetToState(absl::Span<const double> state,
                                        absl::Span<double> observation) {
  return absl::UnimplementedError(
      absl::StrCat(spec().id, " runs in Python, where no environment can begin in a given state"));
}

}  // namespace troupe
