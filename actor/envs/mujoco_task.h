#ifndef TROUPE_ACTOR_ENVS_MUJOCO_TASK_H_
#define TROUPE_ACTOR_ENVS_MUJOCO_TASK_H_

#include <mujoco/mujoco.h>

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/envs/random.h"
#include "actor/envs/task.h"
#include "proto/config.pb.h"

namespace troupe {

inline constexpr int kMaxTaskBodies = 3;

// The physics of one environment instance, as the formulas of its task see it.
struct MujocoWorld {
  const mjModel& model;
  mjData& data;
  // Every keyword of the task is set.
  const proto::Environment& options;
  // Ids of the bodies that the task names, in its order.
  std::array<int, kMaxTaskBodies> bodies{};

  absl::Span<const double> qpos() const { return {data.qpos, static_cast<size_t>(model.nq)}; }
  absl::Span<const double> qvel() const { return {data.qvel, static_cast<size_t>(model.nv)}; }
  // Position of bodies[i] in the world. Unit: m.
  absl::Span<const double> body(int i) const { return {data.xpos + 3 * bodies[i], 3}; }
};

// Writes an observation from front to back; without a target it only counts.
class ObservationWriter final {
 public:
  ObservationWriter(double* target, bool hide_velocities)
      : target_(target), hide_velocities_(hide_velocities) {}

  void Put(double value) {
    if (target_ != nullptr) target_[size_] = value;
    ++size_;
  }
  void Put(absl::Span<const double> values) {
    for (const double value : values) Put(value);
  }
  void PutVelocities(absl::Span<const double> values) {
    if (!hide_velocities_) Put(values);
  }
  int64_t size() const { return size_; }

 private:
  double* const target_;
  const bool hide_velocities_;
  int64_t size_ = 0;
};

// One MuJoCo task: a row of the table, with the formulas that make it different from the others.
struct MujocoTask {
  Task task;
  // Bodies that the formulas need, by name; empty names are unused.
  std::array<absl::string_view, kMaxTaskBodies> bodies{};
  // The smallest model that the formulas can read.
  int min_nq = 1, min_nv = 1, min_sites = 0;
  // Do the formulas read cfrc_ext?  MuJoCo computes it only on demand.
  bool needs_contact_forces = false;

  // Adds the noise of a new episode to data.qpos and data.qvel, which hold the model's defaults.
  void (*perturb)(const MujocoWorld&, Random*) = nullptr;
  // The coordinate whose velocity is rewarded, in m; null where the task rewards none.
  double (*position)(const MujocoWorld&) = nullptr;
  void (*observe)(const MujocoWorld&, ObservationWriter*) = nullptr;
  // Reward and termination of a step, from the physics after it. `velocity`: of `position`, in m/s.
  StepResult (*evaluate)(const MujocoWorld&, absl::Span<const double> action,
                         double velocity) = nullptr;
};

// All tasks, sorted by id.
absl::Span<const MujocoTask> MujocoTasks();

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_MUJOCO_TASK_H_
