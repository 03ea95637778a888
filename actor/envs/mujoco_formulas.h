#ifndef TROUPE_ACTOR_ENVS_MUJOCO_FORMULAS_H_
#define TROUPE_ACTOR_ENVS_MUJOCO_FORMULAS_H_

#include "absl/types/span.h"
#include "actor/env.h"
#include "actor/envs/mujoco_task.h"
#include "actor/envs/random.h"

// What the MuJoCo tasks are made of; the fields of MujocoTask say what each kind of function does.
namespace troupe {

// Noise of a new episode.
void UniformNoise(const MujocoWorld& world, Random* random);
void GaussianVelocityNoise(const MujocoWorld& world, Random* random);
void ReacherNoise(const MujocoWorld& world, Random* random);
void PusherNoise(const MujocoWorld& world, Random* random);

// The coordinate whose velocity is rewarded.
double RootX(const MujocoWorld& world);
double MainBodyX(const MujocoWorld& world);
double MassCenterX(const MujocoWorld& world);

// Observations.
void ObserveHalfCheetah(const MujocoWorld& world, ObservationWriter* out);
void ObserveWithClippedVelocity(const MujocoWorld& world, ObservationWriter* out);
void ObserveSwimmer(const MujocoWorld& world, ObservationWriter* out);
void ObserveAnt(const MujocoWorld& world, ObservationWriter* out);
void ObserveHumanoid(const MujocoWorld& world, ObservationWriter* out);
void ObserveReacher(const MujocoWorld& world, ObservationWriter* out);
void ObservePusher(const MujocoWorld& world, ObservationWriter* out);
void ObserveInvertedPendulum(const MujocoWorld& world, ObservationWriter* out);
void ObserveInvertedDoublePendulum(const MujocoWorld& world, ObservationWriter* out);

// Reward and termination.
StepResult EvaluateRunner(const MujocoWorld& world, absl::Span<const double> action,
                          double velocity);
StepResult EvaluateHopper(const MujocoWorld& world, absl::Span<const double> action,
                          double velocity);
StepResult EvaluateWalker2d(const MujocoWorld& world, absl::Span<const double> action,
                            double velocity);
StepResult EvaluateAnt(const MujocoWorld& world, absl::Span<const double> action, double velocity);
StepResult EvaluateHumanoid(const MujocoWorld& world, absl::Span<const double> action,
                            double velocity);
StepResult EvaluateHumanoidStandup(const MujocoWorld& world, absl::Span<const double> action,
                                   double velocity);
StepResult EvaluateReacher(const MujocoWorld& world, absl::Span<const double> action,
                           double velocity);
StepResult EvaluatePusher(const MujocoWorld& world, absl::Span<const double> action,
                          double velocity);
StepResult EvaluateInvertedPendulum(const MujocoWorld& world, absl::Span<const double> action,
                                    double velocity);
StepResult EvaluateInvertedDoublePendulum(const MujocoWorld& world, absl::Span<const double> action,
                                          double velocity);

}  // namespace troupe

#endif  // TROUPE_ACTOR_ENVS_MUJOCO_FORMULAS_H_
