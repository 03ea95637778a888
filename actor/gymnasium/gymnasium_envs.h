#ifndef TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENVS_H_
#define TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENVS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/gymnasium/env_child.h"
#include "actor/vector_env.h"

namespace troupe {

// Environments in Python, stepped by child processes.  Finish returns as soon as a quarter of those
// that step are done, so that children have work while the policy acts for these; one that takes
// long, or whose child has to be replaced, does not hold up the rest.
class GymnasiumEnvs final : public VectorEnv {
 public:
  // Starts the children and waits for what they say of their environments.  INVALID_ARGUMENT holds
  // what Python said where one cannot be started.
  static absl::StatusOr<std::unique_ptr<VectorEnv>> Make(const proto::Environment& config,
                                                         int num_envs, uint64_t seed);
  ~GymnasiumEnvs() override;

  void Reset() override;
  void Begin(absl::Span<const int> envs, absl::Span<const float> actions) override;
  absl::Span<const int> Finish() override;
  Faults faults() const override;

 private:
  struct Parts {
    std::vector<std::unique_ptr<EnvChild>> children;
    std::unique_ptr<EnvFaults> faults;
    std::unique_ptr<std::vector<int64_t>> episodes;  // begun, of each environment
  };
  GymnasiumEnvs(Parts parts, int num_envs, int envs_per_child, bool is_vector);

  // Until every environment has begun its first episode; the error is that of a child.
  absl::Status AwaitEpisodes();
  // Until a good part of the environments is done, something failed, or `until`.
  void Await(absl::Time until);
  // Takes down what is done.
  void Collect();
  void Take(int child, const EnvChild::Event& event);
  void TakeStep(int env, EnvChild& child, int slot);
  void Show(const ObservationView& view, int env, std::vector<float>& numbers);
  int NumBusy() const;

  // After a Begin that found a child asleep, or none.
  void AdaptReserve(bool slept);
  // Of a child's environments, before it wakes the actor.
  int NumToWait(const EnvChild& child) const;

  const int envs_per_child_;
  const bool is_vector_;  // a child steps all of its environments at once
  const Parts parts_;
  std::vector<EnvChild*> all_;     // of parts_.children
  std::vector<uint8_t> keeps_up_;  // of each child: it told of something since it was asked
  int last_asked_ = 0;
  // Environments that a child still has to step when it wakes the actor: as few as keep it from
  // falling asleep, since each wake-up costs about as much as a step.
  int reserve_ = 1;
  int num_busy_rounds_ = 0;  // calls of Begin since a child was found asleep
  absl::Time next_look_ = absl::InfinitePast();
  std::vector<EnvChild::Event> events_;       // scratch
  std::vector<std::vector<uint16_t>> begun_;  // scratch: slots of each child
  bool is_fresh_ = true;                      // the first episodes have begun, and no step
  std::vector<int> done_;
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENVS_H_
