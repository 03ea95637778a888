// The formulas of Gymnasium v5's MuJoCo tasks (gymnasium/envs/mujoco/*_v5.py).
#include "actor/envs/mujoco_formulas.h"

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

using proto::Interval;

bool IsOpenInside(const Interval& range, double x) { return range.low() < x && x < range.high(); }

double Clip(double x, double low, double high) { return std::min(std::max(x, low), high); }

// Keeps a NaN, as numpy.clip does.
double ClipTo(const Interval& range, double x) {
  return std::isnan(x) ? x : Clip(x, range.low(), range.high());
}

bool AllFinite(absl::Span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

double SumOfSquares(absl::Span<const double> values) {
  double sum = 0;
  for (const double x : values) sum += x * x;
  return sum;
}

double Distance(absl::Span<const double> a, absl::Span<const double> b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

double ControlCost(const MujocoWorld& world, absl::Span<const double> action) {
  return world.options.ctrl_cost_weight() * SumOfSquares(action);
}

// Humanoid's cost uses the controls that were applied.
double AppliedControlCost(const MujocoWorld& world) {
  return ControlCost(world, {world.data.ctrl, static_cast<size_t>(world.model.nu)});
}

// Rows of a per-body array without the world's.
absl::Span<const double> OfBodies(const MujocoWorld& world, const mjtNum* rows, int width) {
  return {rows + width, static_cast<size_t>(width * (world.model.nbody - 1))};
}

double SquaredContactForces(const MujocoWorld& world) {
  return SumOfSquares({world.data.cfrc_ext, static_cast<size_t>(6 * world.model.nbody)});
}

void AddUniform(double* values, int64_t n, double scale, Random* random) {
  for (int64_t i = 0; i < n; ++i) values[i] += random->Uniform(-scale, scale);
}

// qpos without the first `hidden` coordinates (if they are to be excluded).
void PutPositions(const MujocoWorld& world, int hidden, ObservationWriter* out) {
  const bool exclude = world.options.exclude_current_positions_from_observation();
  out->Put(world.qpos().subspan(exclude ? hidden : 0));
}

void PutClippedVelocities(const MujocoWorld& world, ObservationWriter* out) {
  for (const double v : world.qvel()) {
    const double clipped = std::clamp(v, -10.0, 10.0);
    out->PutVelocities({&clipped, 1});
  }
}

// The form that the walking tasks share: forward and survival reward minus costs.
StepResult Walk(const MujocoWorld& world, double v, bool healthy, double costs) {
  const proto::Environment& options = world.options;
  const double survival = healthy ? options.healthy_reward() : 0;
  return {.reward = options.forward_reward_weight() * v + survival - costs,
          .terminated = !healthy && options.terminate_when_unhealthy()};
}

enum ReacherBody { kFingertip, kTarget };

enum PusherBody { kTipsArm, kObject, kGoal };

}  // namespace

// --- Noise of a new episode -----------------------------------------------------------------

void UniformNoise(const MujocoWorld& world, Random* random) {
  const double scale = world.options.reset_noise_scale();
  AddUniform(world.data.qpos, world.model.nq, scale, random);
  AddUniform(world.data.qvel, world.model.nv, scale, random);
}

void GaussianVelocityNoise(const MujocoWorld& world, Random* random) {
  const double scale = world.options.reset_noise_scale();
  AddUniform(world.data.qpos, world.model.nq, scale, random);
  for (int64_t i = 0; i < world.model.nv; ++i) world.data.qvel[i] += scale * random->Gaussian();
}

// The goal is uniform in a disc of 0.2 m.
void ReacherNoise(const MujocoWorld& world, Random* random) {
  AddUniform(world.data.qpos, world.model.nq, 0.1, random);
  AddUniform(world.data.qvel, world.model.nv, 0.005, random);
  double* goal = world.data.qpos + world.model.nq - 2;
  do {
    goal[0] = random->Uniform(-0.2, 0.2);
    goal[1] = random->Uniform(-0.2, 0.2);
  } while (std::hypot(goal[0], goal[1]) >= 0.2);
  std::fill_n(world.data.qvel + world.model.nv - 2, 2, 0.0);
}

// The cylinder starts anywhere in a rectangle but near the goal, which stays where it is.
void PusherNoise(const MujocoWorld& world, Random* random) {
  AddUniform(world.data.qvel, world.model.nv, 0.005, random);
  double* cylinder = world.data.qpos + world.model.nq - 4;
  do {
    cylinder[0] = random->Uniform(-0.3, 0.0);
    cylinder[1] = random->Uniform(-0.2, 0.2);
  } while (std::hypot(cylinder[0], cylinder[1]) <= 0.17);
  std::fill_n(world.data.qpos + world.model.nq - 2, 2, 0.0);
  std::fill_n(world.data.qvel + world.model.nv - 4, 4, 0.0);
}

// --- What is rewarded for moving --------------------------------------------------------------

double RootX(const MujocoWorld& world) { return world.data.qpos[0]; }

double MainBodyX(const MujocoWorld& world) {
  return world.data.xpos[3 * world.options.main_body()];
}

double MassCenterX(const MujocoWorld& world) {
  double moment = 0, mass = 0;
  for (int64_t body = 0; body < world.model.nbody; ++body) {
    moment += world.model.body_mass[body] * world.data.xipos[3 * body];
    mass += world.model.body_mass[body];
  }
  return moment / mass;
}

// --- Observations -----------------------------------------------------------------------------

void ObserveHalfCheetah(const MujocoWorld& world, ObservationWriter* out) {
  PutPositions(world, 1, out);
  out->PutVelocities(world.qvel());
}

// Hopper and Walker2d.
void ObserveWithClippedVelocity(const MujocoWorld& world, ObservationWriter* out) {
  PutPositions(world, 1, out);
  PutClippedVelocities(world, out);
}

void ObserveSwimmer(const MujocoWorld& world, ObservationWriter* out) {
  PutPositions(world, 2, out);
  out->PutVelocities(world.qvel());
}

void ObserveAnt(const MujocoWorld& world, ObservationWriter* out) {
  PutPositions(world, 2, out);
  out->PutVelocities(world.qvel());
  if (!world.options.include_cfrc_ext_in_observation()) return;
  for (const double force : OfBodies(world, world.data.cfrc_ext, 6)) {
    out->Put(ClipTo(world.options.contact_force_range(), force));
  }
}

// Humanoid and HumanoidStandup.
void ObserveHumanoid(const MujocoWorld& world, ObservationWriter* out) {
  const proto::Environment& options = world.options;
  const mjData& data = world.data;
  PutPositions(world, 2, out);
  out->PutVelocities(world.qvel());
  if (options.include_cinert_in_observation()) out->Put(OfBodies(world, data.cinert, 10));
  if (options.include_cvel_in_observation()) out->PutVelocities(OfBodies(world, data.cvel, 6));
  if (options.include_qfrc_actuator_in_observation()) {
    out->Put({data.qfrc_actuator + 6, static_cast<size_t>(world.model.nv - 6)});
  }
  if (options.include_cfrc_ext_in_observation()) out->Put(OfBodies(world, data.cfrc_ext, 6));
}

void ObserveReacher(const MujocoWorld& world, ObservationWriter* out) {
  for (const double theta : world.qpos().first(2)) out->Put(std::cos(theta));
  for (const double theta : world.qpos().first(2)) out->Put(std::sin(theta));
  out->Put(world.qpos().subspan(2));
  out->PutVelocities(world.qvel().first(2));
  for (int i = 0; i < 2; ++i) out->Put(world.body(kFingertip)[i] - world.body(kTarget)[i]);
}

void ObservePusher(const MujocoWorld& world, ObservationWriter* out) {
  out->Put(world.qpos().first(7));
  out->PutVelocities(world.qvel().first(7));
  for (const PusherBody body : {kTipsArm, kObject, kGoal}) out->Put(world.body(body));
}

void ObserveInvertedPendulum(const MujocoWorld& world, ObservationWriter* out) {
  out->Put(world.qpos());
  out->PutVelocities(world.qvel());
}

void ObserveInvertedDoublePendulum(const MujocoWorld& world, ObservationWriter* out) {
  out->Put(world.data.qpos[0]);
  for (const double theta : world.qpos().subspan(1)) out->Put(std::sin(theta));
  for (const double theta : world.qpos().subspan(1)) out->Put(std::cos(theta));
  PutClippedVelocities(world, out);
  out->Put(std::clamp(world.data.qfrc_constraint[0], -10.0, 10.0));
}

// --- Reward and termination -------------------------------------------------------------------

// HalfCheetah and Swimmer.
StepResult EvaluateRunner(const MujocoWorld& world, absl::Span<const double> action, double v) {
  return {.reward = world.options.forward_reward_weight() * v - ControlCost(world, action)};
}

StepResult EvaluateHopper(const MujocoWorld& world, absl::Span<const double> action, double v) {
  const proto::Environment& options = world.options;
  const auto inside = [&options](double x) {
    return IsOpenInside(options.healthy_state_range(), x);
  };
  const auto state = world.qpos().subspan(2);
  const bool healthy = IsOpenInside(options.healthy_z_range(), world.data.qpos[1]) &&
                       IsOpenInside(options.healthy_angle_range(), world.data.qpos[2]) &&
                       std::all_of(state.begin(), state.end(), inside) &&
                       std::all_of(world.qvel().begin(), world.qvel().end(), inside);
  return Walk(world, v, healthy, ControlCost(world, action));
}

StepResult EvaluateWalker2d(const MujocoWorld& world, absl::Span<const double> action, double v) {
  const bool healthy = IsOpenInside(world.options.healthy_z_range(), world.data.qpos[1]) &&
                       IsOpenInside(world.options.healthy_angle_range(), world.data.qpos[2]);
  return Walk(world, v, healthy, ControlCost(world, action));
}

StepResult EvaluateAnt(const MujocoWorld& world, absl::Span<const double> action, double v) {
  const proto::Environment& options = world.options;
  const double z = world.data.qpos[2];
  const bool healthy = AllFinite(world.qpos()) && AllFinite(world.qvel()) &&
                       options.healthy_z_range().low() <= z &&
                       z <= options.healthy_z_range().high();
  double contact = 0;  // sum of squared clipped forces, over the world's row too
  for (int64_t i = 0; i < 6 * world.model.nbody; ++i) {
    const double force = ClipTo(options.contact_force_range(), world.data.cfrc_ext[i]);
    contact += force * force;
  }
  return Walk(world, v, healthy,
              ControlCost(world, action) + options.contact_cost_weight() * contact);
}

StepResult EvaluateHumanoid(const MujocoWorld& world, absl::Span<const double>, double v) {
  const proto::Environment& options = world.options;
  const double contact_cost = ClipTo(options.contact_cost_range(),
                                     options.contact_cost_weight() * SquaredContactForces(world));
  const bool healthy = IsOpenInside(options.healthy_z_range(), world.data.qpos[2]);
  return Walk(world, v, healthy, AppliedControlCost(world) + contact_cost);
}

// As Gymnasium's: "uph" is the height over the physics time step, no velocity, and nothing reads
// uph_cost_weight.
StepResult EvaluateHumanoidStandup(const MujocoWorld& world, absl::Span<const double>, double) {
  const proto::Environment& options = world.options;
  const double uph = world.data.qpos[2] / world.model.opt.timestep;
  const double impact_cost = ClipTo(options.impact_cost_range(),
                                    options.impact_cost_weight() * SquaredContactForces(world));
  return {.reward = uph - AppliedControlCost(world) - impact_cost + 1};
}

StepResult EvaluateReacher(const MujocoWorld& world, absl::Span<const double> action, double) {
  const proto::Environment& options = world.options;
  const double distance = Distance(world.body(kFingertip), world.body(kTarget));
  return {.reward = -distance * options.reward_dist_weight() -
                    SumOfSquares(action) * options.reward_control_weight()};
}

StepResult EvaluatePusher(const MujocoWorld& world, absl::Span<const double> action, double) {
  const proto::Environment& options = world.options;
  const double near = Distance(world.body(kObject), world.body(kTipsArm));
  const double distance = Distance(world.body(kObject), world.body(kGoal));
  return {.reward = -distance * options.reward_dist_weight() -
                    SumOfSquares(action) * options.reward_control_weight() -
                    near * options.reward_near_weight()};
}

StepResult EvaluateInvertedPendulum(const MujocoWorld& world, absl::Span<const double>, double) {
  const bool terminated =
      !AllFinite(world.qpos()) || !AllFinite(world.qvel()) || std::abs(world.data.qpos[1]) > 0.2;
  return {.reward = terminated ? 0.0 : 1.0, .terminated = terminated};
}

StepResult EvaluateInvertedDoublePendulum(const MujocoWorld& world, absl::Span<const double>,
                                          double) {
  const double x = world.data.site_xpos[0], y = world.data.site_xpos[2];  // the tip
  const double v1 = world.data.qvel[1], v2 = world.data.qvel[2];
  const bool terminated = y <= 1;
  const double distance_penalty = 0.01 * x * x + (y - 2) * (y - 2);
  const double velocity_penalty = 0.001 * v1 * v1 + 0.005 * v2 * v2;
  const double alive_bonus = terminated ? 0 : world.options.healthy_reward();
  return {.reward = alive_bonus - distance_penalty - velocity_penalty, .terminated = terminated};
}

}  // namespace troupe
