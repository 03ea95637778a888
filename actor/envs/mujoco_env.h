#ifndef TROUPE_ACTOR_ENVS_MUJOCO_ENV_H_
#define TROUPE_ACTOR_ENVS_MUJOCO_ENV_H_

#include <mujoco/mujoco.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/envs/mujoco_task.h"
#include "proto/config.pb.h"

namespace troupe {

// Any MuJoCo task: the physics, with the task's formulas around it.  Never truncates.
//
// Not thread-safe, but instances share one constant model, also across threads.
class MujocoEnv final : public Env {
 public:
  // `options`: every keyword of the task is set; `xml_file` is relative to `asset_dir` unless it
  // starts with '/', '.' or '~'.  NOT_FOUND names a missing model file, INVALID_ARGUMENT what is
  // wrong with it.
  static absl::StatusOr<std::unique_ptr<Env>> Make(const MujocoTask& task,
                                                   const proto::Environment& options,
                                                   const std::string& asset_dir);

  MujocoEnv(const MujocoEnv&) = delete;
  MujocoEnv& operator=(const MujocoEnv&) = delete;

  const EnvSpec& spec() const override { return spec_; }
  void Reset(uint64_t seed, absl::Span<double> observation) override;
  StepResult Step(absl::Span<const double> action, absl::Span<double> observation) override;
  absl::Status ResetToState(absl::Span<const double> state,
                            absl::Span<double> observation) override;

 private:
  using ModelPtr = std::shared_ptr<const mjModel>;
  struct DeleteData {
    void operator()(mjData* data) const { mj_deleteData(data); }
  };

  MujocoEnv(const MujocoTask& task, const proto::Environment& options, ModelPtr model,
            const std::array<int, kMaxTaskBodies>& bodies);

  static absl::StatusOr<ModelPtr> SharedModel(const std::string& path);

  // Constant after construction.
  const MujocoTask& task_;
  const proto::Environment options_;
  const ModelPtr model_;
  const double step_seconds_;
  EnvSpec spec_;

  const std::unique_ptr<mjData, DeleteData> data_;
  const MujocoWorld world_;  // views of the above
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_MUJOCO_ENV_H_
