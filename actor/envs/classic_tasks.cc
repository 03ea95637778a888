// The classic control tasks of Gymnasium (gymnasium/envs/classic_control/*.py): their formulas, in
// Gymnasium's order of operations and precision, and the table.
#include <algorithm>
#include <cmath>

#include "actor/envs/classic_env.h"

namespace troupe {
namespace {

constexpr double kPi = 3.14159265358979323846;

double ToFloat32(double x) { return static_cast<float>(x); }

// --- Pendulum: state is the angle from upright and its velocity, in rad and rad/s ---------------

ClassicState StartPendulum(Random* random) {
  const double theta = random->Uniform(-kPi, kPi);
  return {theta, random->Uniform(-1, 1)};
}

// To [-pi, pi).
double NormalizeAngle(double theta) {
  const double turned = std::fmod(theta + kPi, 2 * kPi);
  return (turned < 0 ? turned + 2 * kPi : turned) - kPi;
}

StepResult StepPendulum(const proto::Environment& options, double action, ClassicState* state) {
  constexpr double kMaxSpeed = 8, kMaxTorque = 2, kSeconds = 0.05, kMass = 1, kLength = 1;
  auto& [theta, velocity, unused1, unused2] = *state;
  const double u = std::clamp(action, -kMaxTorque, kMaxTorque);
  const double angle = NormalizeAngle(theta);
  const double cost = angle * angle + 0.1 * (velocity * velocity) + 0.001 * (u * u);
  const double acceleration =
      3 * options.g() / (2 * kLength) * std::sin(theta) + 3.0 / (kMass * kLength * kLength) * u;
  velocity = std::clamp(velocity + acceleration * kSeconds, -kMaxSpeed, kMaxSpeed);
  theta += velocity * kSeconds;
  return {.reward = -cost};
}

void ObservePendulum(const ClassicState& state, absl::Span<double> out) {
  out[0] = std::cos(state[0]);
  out[1] = std::sin(state[0]);
  out[2] = state[1];
}

// --- CartPole: position and velocity of the cart, angle and velocity of the pole ----------------

ClassicState StartCartPole(Random* random) {
  ClassicState state;
  for (double& x : state) x = random->Uniform(-0.05, 0.05);
  return state;
}

StepResult StepCartPole(const proto::Environment& options, double action, ClassicState* state) {
  constexpr double kGravity = 9.8, kPoleMass = 0.1, kTotalMass = kPoleMass + 1.0;
  constexpr double kHalfLength = 0.5, kPoleMoment = kPoleMass * kHalfLength;
  constexpr double kForce = 10, kSeconds = 0.02, kMaxX = 2.4, kMaxTheta = 12 * 2 * kPi / 360;
  auto& [x, x_dot, theta, theta_dot] = *state;
  const double force = action == 1 ? kForce : -kForce;
  const double cosine = std::cos(theta), sine = std::sin(theta);
  const double temp = (force + kPoleMoment * (theta_dot * theta_dot) * sine) / kTotalMass;
  const double theta_acc = (kGravity * sine - cosine * temp) /
                           (kHalfLength * (4.0 / 3.0 - kPoleMass * (cosine * cosine) / kTotalMass));
  const double x_acc = temp - kPoleMoment * theta_acc * cosine / kTotalMass;
  x += kSeconds * x_dot;
  x_dot += kSeconds * x_acc;
  theta += kSeconds * theta_dot;
  theta_dot += kSeconds * theta_acc;
  const bool fallen = x < -kMaxX || x > kMaxX || theta < -kMaxTheta || theta > kMaxTheta;
  if (options.sutton_barto_reward()) return {.reward = fallen ? -1.0 : 0.0, .terminated = fallen};
  return {.reward = 1, .terminated = fallen};
}

void ObserveState4(const ClassicState& state, absl::Span<double> out) {
  std::copy(state.begin(), state.end(), out.begin());
}

// --- MountainCarContinuous: position and velocity, which Gymnasium keeps as float32 -------------

ClassicState StartMountainCar(Random* random) { return {random->Uniform(-0.6, -0.4), 0}; }

StepResult StepMountainCar(const proto::Environment& options, double action, ClassicState* state) {
  constexpr double kMinX = -1.2, kMaxX = 0.6, kMaxSpeed = 0.07, kGoal = 0.45, kPower = 0.0015;
  auto& [x, velocity, unused1, unused2] = *state;
  const double force = std::min(std::max(action, -1.0), 1.0);
  velocity += force * kPower - 0.0025 * std::cos(ToFloat32(3 * x));
  velocity = std::clamp(velocity, -kMaxSpeed, kMaxSpeed);
  x = std::clamp(x + velocity, kMinX, kMaxX);
  if (x == kMinX && velocity < 0) velocity = 0;
  const bool arrived = x >= kGoal && velocity >= options.goal_velocity();
  x = ToFloat32(x);
  velocity = ToFloat32(velocity);
  return {.reward = (arrived ? 100.0 : 0.0) - action * action * 0.1, .terminated = arrived};
}

void ObserveState2(const ClassicState& state, absl::Span<double> out) {
  std::copy_n(state.begin(), 2, out.begin());
}

// --- Acrobot: angles of the two links and their velocities --------------------------------------

ClassicState StartAcrobot(Random* random) {
  ClassicState state;
  for (double& x : state) x = ToFloat32(random->Uniform(-0.1, 0.1));
  return state;
}

// Time derivative of the state ("book" dynamics; Sutton and Barto).  Masses and lengths of the
// links and their moments of inertia are 1, their centres of mass halfway.
ClassicState AcrobotDerivative(const ClassicState& state, double torque) {
  constexpr double kLc = 0.5, kG = 9.8, kI = 1;
  const auto& [theta1, theta2, dtheta1, dtheta2] = state;
  const double c2 = std::cos(theta2), s2 = std::sin(theta2);
  const double d1 = kLc * kLc + (1 + kLc * kLc + 2 * kLc * c2) + kI + kI;
  const double d2 = (kLc * kLc + kLc * c2) + kI;
  const double phi2 = kLc * kG * std::cos(theta1 + theta2 - kPi / 2.0);
  const double phi1 = -kLc * (dtheta2 * dtheta2) * s2 - 2 * kLc * dtheta2 * dtheta1 * s2 +
                      (kLc + 1) * kG * std::cos(theta1 - kPi / 2) + phi2;
  const double ddtheta2 = (torque + d2 / d1 * phi1 - kLc * (dtheta1 * dtheta1) * s2 - phi2) /
                          (kLc * kLc + kI - d2 * d2 / d1);
  const double ddtheta1 = -(d2 * ddtheta2 + phi1) / d1;
  return {dtheta1, dtheta2, ddtheta1, ddtheta2};
}

// state + scale * slope
ClassicState Along(const ClassicState& state, double scale, const ClassicState& slope) {
  ClassicState moved;
  for (int i = 0; i < 4; ++i) moved[i] = state[i] + scale * slope[i];
  return moved;
}

double WrapAngle(double x) {
  if (!(std::abs(x) < 1e6)) return std::remainder(x, 2 * kPi);
  while (x > kPi) x -= 2 * kPi;
  while (x < -kPi) x += 2 * kPi;
  return x;
}

StepResult StepAcrobot(const proto::Environment&, double action, ClassicState* state) {
  constexpr double kSeconds = 0.2, kMaxSpeed1 = 4 * kPi, kMaxSpeed2 = 9 * kPi;
  const double torque = action - 1;
  ClassicState& s = *state;
  const ClassicState k1 = AcrobotDerivative(s, torque);
  const ClassicState k2 = AcrobotDerivative(Along(s, kSeconds / 2, k1), torque);
  const ClassicState k3 = AcrobotDerivative(Along(s, kSeconds / 2, k2), torque);
  const ClassicState k4 = AcrobotDerivative(Along(s, kSeconds, k3), torque);
  for (int i = 0; i < 4; ++i) s[i] += kSeconds / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
  s[0] = WrapAngle(s[0]);
  s[1] = WrapAngle(s[1]);
  s[2] = std::clamp(s[2], -kMaxSpeed1, kMaxSpeed1);
  s[3] = std::clamp(s[3], -kMaxSpeed2, kMaxSpeed2);
  const bool up = -std::cos(s[0]) - std::cos(s[1] + s[0]) > 1.0;
  return {.reward = up ? 0.0 : -1.0, .terminated = up};
}

void ObserveAcrobot(const ClassicState& state, absl::Span<double> out) {
  out[0] = std::cos(state[0]);
  out[1] = std::sin(state[0]);
  out[2] = std::cos(state[1]);
  out[3] = std::sin(state[1]);
  out[4] = state[2];
  out[5] = state[3];
}

// --- The table ----------------------------------------------------------------------------------

constexpr ClassicTask kTasks[] = {
    {.task = {.id = "Acrobot-v1", .max_episode_steps = 500},
     .state_size = 4,
     .observation_size = 6,
     .is_velocity = {false, false, false, false, true, true},
     .num_choices = 3,
     .start = StartAcrobot,
     .step = StepAcrobot,
     .observe = ObserveAcrobot},
    {.task = {.id = "CartPole-v1",
              .max_episode_steps = 500,
              .defaults = "sutton_barto_reward: false"},
     .state_size = 4,
     .observation_size = 4,
     .is_velocity = {false, true, false, true},
     .num_choices = 2,
     .start = StartCartPole,
     .step = StepCartPole,
     .observe = ObserveState4},
    {.task = {.id = "MountainCarContinuous-v0",
              .max_episode_steps = 999,
              .defaults = "goal_velocity: 0"},
     .state_size = 2,
     .observation_size = 2,
     .is_velocity = {false, true},
     .max_action = 1,
     .start = StartMountainCar,
     .step = StepMountainCar,
     .observe = ObserveState2},
    {.task = {.id = "Pendulum-v1", .max_episode_steps = 200, .defaults = "g: 10"},
     .state_size = 2,
     .observation_size = 3,
     .is_velocity = {false, false, true},
     .max_action = 2,
     .start = StartPendulum,
     .step = StepPendulum,
     .observe = ObservePendulum},
};

}  // namespace

absl::Span<const ClassicTask> ClassicTasks() { return kTasks; }

}  // namespace troupe
