#ifndef TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENV_H_
#define TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENV_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/gymnasium/env_child.h"

namespace troupe {

// One environment in Python, in a child process of its own.  A step at which it fails ends the
// episode as truncated, with its last observation and no reward; the failure is in the log.
class GymnasiumEnv final : public Env {
 public:
  // INVALID_ARGUMENT holds what Python said.
  static absl::StatusOr<std::unique_ptr<Env>> Make(const proto::Environment& config);
  ~GymnasiumEnv() override;

  const EnvSpec& spec() const override { return *child_->spec(); }
  void Reset(uint64_t seed, absl::Span<double> observation) override;
  StepResult Step(absl::Span<const double> action, absl::Span<double> observation) override;
  void BeginStep(absl::Span<const double> action) override;
  StepResult FinishStep(absl::Span<double> observation) override;
  absl::Span<const uint8_t> images() const override { return images_; }
  // UNIMPLEMENTED: Gymnasium has no such call.
  absl::Status ResetToState(absl::Span<const double> state,
                            absl::Span<double> observation) override;

 private:
  GymnasiumEnv() = default;

  // Waits for word of the child, or a failure.
  void Listen(absl::FunctionRef<void(const EnvChild::Event&)> take);
  // Until the child is not busy; false: it lost its episode.
  bool Await();
  void Show(const ObservationView& view, absl::Span<double> observation);

  uint64_t seed_ = 0;  // of the next episode
  EnvFaults faults_;
  std::unique_ptr<EnvChild> child_;
  std::vector<double> last_;     // [observation_size], shown last
  std::vector<uint8_t> images_;  // [image_bytes]
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_GYMNASIUM_GYMNASIUM_ENV_H_
