#ifndef TROUPE_ACTOR_ENV_H_
#define TROUPE_ACTOR_ENV_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/config.pb.h"

namespace troupe {

// A column that rows hold observations in.
struct ObservationColumn {
  std::string name;
  std::vector<int64_t> shape;

  friend bool operator==(const ObservationColumn&, const ObservationColumn&) = default;
};

// What a policy needs to know of an environment.  Observations are flat float64 vectors inside the
// environment (Gymnasium's precision), which rows store as float32, and images beside them, which
// are bytes everywhere.
struct EnvSpec {
  std::string id;
  int64_t observation_size = 0;  // of the vector; 0: there are images only
  // The columns that the vector is stored in, in its order; empty: one, "observation".
  std::vector<ObservationColumn> columns;
  // The columns of images, [height, width, channels] each, and their sizes together.
  std::vector<ObservationColumn> images;
  int64_t image_bytes = 0;
  // Continuous actions: elements of the action, with their bounds.
  int64_t action_size = 0;
  std::vector<double> action_low, action_high;  // [action_size]
  // Discrete actions: number of choices of each element, which holds 0 .. n - 1.  Empty:
  // continuous.
  std::vector<int64_t> num_choices;  // [action_size]
  // Truncation after this many steps; 0: never.
  int64_t max_episode_steps = 0;

  friend bool operator==(const EnvSpec&, const EnvSpec&) = default;
};

struct StepResult {
  double reward = 0;
  // Two facts from the environment; neither is ever derived from the other.
  bool terminated = false;
  bool truncated = false;
};

// One environment instance, with the semantics of Gymnasium's `reset` and `step`.
//
// Not thread-safe; an instance may move between threads between calls.  After a step that
// terminated or truncated the caller must call Reset.
class Env {
 public:
  virtual ~Env() = default;

  virtual const EnvSpec& spec() const = 0;

  // Starts an episode.  The same seed gives the same episode for the same actions.
  // `observation`: [observation_size].
  virtual void Reset(uint64_t seed, absl::Span<double> observation) = 0;

  // `action`: [action_size], clipped by the environment as Gymnasium's task does (or not at all
  // where Gymnasium does not).  All arithmetic is float64, as Gymnasium's is for float64 actions.
  virtual StepResult Step(absl::Span<const double> action, absl::Span<double> observation) = 0;

  // Step in two halves, so that environments that work elsewhere do so together.  `action` stays as
  // it is until FinishStep.
  virtual void BeginStep(absl::Span<const double> action) { begun_ = action; }
  virtual StepResult FinishStep(absl::Span<double> observation) {
    return Step(begun_, observation);
  }

  // The images of the observation that was given last, until the next Reset or Step.  [image_bytes]
  virtual absl::Span<const uint8_t> images() const { return {}; }

  // Starts an episode from a given state: MuJoCo qpos then qvel; classic control's state vector.
  // INVALID_ARGUMENT with both sizes if `state` has the wrong one.
  virtual absl::Status ResetToState(absl::Span<const double> state,
                                    absl::Span<double> observation) = 0;

 private:
  absl::Span<const double> begun_;
};

// Makes the environment that `config.id` or `config.gymnasium` names.  `asset_dir` is the folder of
// Gymnasium's MuJoCo models.  NOT_FOUND names the id and the nearest known one, or the model file
// that is missing; INVALID_ARGUMENT names each keyword that the id does not have, or says what
// Python said.
absl::StatusOr<std::unique_ptr<Env>> MakeEnv(const proto::Environment& config,
                                             const std::string& asset_dir);

// Ids that MakeEnv knows, sorted.
std::vector<std::string> KnownEnvIds();

// Where the models are: environment variable TROUPE_ASSET_DIR, or the gymnasium package that the
// build found.
std::string DefaultAssetDir();

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENV_H_
