// The table of Gymnasium v5's MuJoCo tasks.
#include "actor/envs/mujoco_formulas.h"
#include "actor/envs/mujoco_task.h"

namespace troupe {
namespace {

constexpr MujocoTask kTasks[] = {
    {.task = {.id = "Ant-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "ant.xml"  frame_skip: 5  reset_noise_scale: 0.1
                forward_reward_weight: 1  ctrl_cost_weight: 0.5  contact_cost_weight: 5e-4
                contact_force_range { low: -1 high: 1 }
                healthy_reward: 1  healthy_z_range { low: 0.2 high: 1 }
                terminate_when_unhealthy: true  main_body: 1
                exclude_current_positions_from_observation: true
                include_cfrc_ext_in_observation: true)"},
     .min_nq = 3,
     .needs_contact_forces = true,
     .perturb = GaussianVelocityNoise,
     .position = MainBodyX,
     .observe = ObserveAnt,
     .evaluate = EvaluateAnt},
    {.task = {.id = "HalfCheetah-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "half_cheetah.xml"  frame_skip: 5  reset_noise_scale: 0.1
                forward_reward_weight: 1  ctrl_cost_weight: 0.1
                exclude_current_positions_from_observation: true)"},
     .perturb = GaussianVelocityNoise,
     .position = RootX,
     .observe = ObserveHalfCheetah,
     .evaluate = EvaluateRunner},
    {.task = {.id = "Hopper-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "hopper.xml"  frame_skip: 4  reset_noise_scale: 5e-3
                forward_reward_weight: 1  ctrl_cost_weight: 1e-3
                healthy_reward: 1  healthy_state_range { low: -100 high: 100 }
                healthy_z_range { low: 0.7 high: inf }
                healthy_angle_range { low: -0.2 high: 0.2 }
                terminate_when_unhealthy: true
                exclude_current_positions_from_observation: true)"},
     .min_nq = 3,
     .perturb = UniformNoise,
     .position = RootX,
     .observe = ObserveWithClippedVelocity,
     .evaluate = EvaluateHopper},
    {.task = {.id = "Humanoid-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "humanoid.xml"  frame_skip: 5  reset_noise_scale: 1e-2
                forward_reward_weight: 1.25  ctrl_cost_weight: 0.1  contact_cost_weight: 5e-7
                contact_cost_range { low: -inf high: 10 }
                healthy_reward: 5  healthy_z_range { low: 1 high: 2 }
                terminate_when_unhealthy: true
                exclude_current_positions_from_observation: true
                include_cinert_in_observation: true  include_cvel_in_observation: true
                include_qfrc_actuator_in_observation: true
                include_cfrc_ext_in_observation: true)"},
     .min_nq = 3,
     .min_nv = 6,
     .needs_contact_forces = true,
     .perturb = UniformNoise,
     .position = MassCenterX,
     .observe = ObserveHumanoid,
     .evaluate = EvaluateHumanoid},
    {.task = {.id = "HumanoidStandup-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "humanoidstandup.xml"  frame_skip: 5  reset_noise_scale: 1e-2
                uph_cost_weight: 1  ctrl_cost_weight: 0.1  impact_cost_weight: 5e-7
                impact_cost_range { low: -inf high: 10 }
                exclude_current_positions_from_observation: true
                include_cinert_in_observation: true  include_cvel_in_observation: true
                include_qfrc_actuator_in_observation: true
                include_cfrc_ext_in_observation: true)"},
     .min_nq = 3,
     .min_nv = 6,
     .needs_contact_forces = true,
     .perturb = UniformNoise,
     .observe = ObserveHumanoid,
     .evaluate = EvaluateHumanoidStandup},
    {.task = {.id = "InvertedDoublePendulum-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "inverted_double_pendulum.xml"  frame_skip: 5  reset_noise_scale: 0.1
                healthy_reward: 10)"},
     .min_nq = 3,
     .min_nv = 3,
     .min_sites = 1,
     .perturb = GaussianVelocityNoise,
     .observe = ObserveInvertedDoublePendulum,
     .evaluate = EvaluateInvertedDoublePendulum},
    {.task = {.id = "InvertedPendulum-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "inverted_pendulum.xml"  frame_skip: 2  reset_noise_scale: 1e-2)"},
     .min_nq = 2,
     .perturb = UniformNoise,
     .observe = ObserveInvertedPendulum,
     .evaluate = EvaluateInvertedPendulum},
    {.task = {.id = "Pusher-v5", .max_episode_steps = 100, .defaults = R"(
                xml_file: "pusher_v5.xml"  frame_skip: 5
                reward_near_weight: 0.5  reward_dist_weight: 1  reward_control_weight: 0.1)"},
     .bodies = {"tips_arm", "object", "goal"},
     .min_nq = 7,
     .min_nv = 7,
     .perturb = PusherNoise,
     .observe = ObservePusher,
     .evaluate = EvaluatePusher},
    {.task = {.id = "Reacher-v5", .max_episode_steps = 50, .defaults = R"(
                xml_file: "reacher.xml"  frame_skip: 2
                reward_dist_weight: 1  reward_control_weight: 1)"},
     .bodies = {"fingertip", "target"},
     .min_nq = 2,
     .min_nv = 2,
     .perturb = ReacherNoise,
     .observe = ObserveReacher,
     .evaluate = EvaluateReacher},
    {.task = {.id = "Swimmer-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "swimmer.xml"  frame_skip: 4  reset_noise_scale: 0.1
                forward_reward_weight: 1  ctrl_cost_weight: 1e-4
                exclude_current_positions_from_observation: true)"},
     .min_nq = 2,
     .perturb = UniformNoise,
     .position = RootX,
     .observe = ObserveSwimmer,
     .evaluate = EvaluateRunner},
    {.task = {.id = "Walker2d-v5", .max_episode_steps = 1000, .defaults = R"(
                xml_file: "walker2d_v5.xml"  frame_skip: 4  reset_noise_scale: 5e-3
                forward_reward_weight: 1  ctrl_cost_weight: 1e-3
                healthy_reward: 1  healthy_z_range { low: 0.8 high: 2 }
                healthy_angle_range { low: -1 high: 1 }
                terminate_when_unhealthy: true
                exclude_current_positions_from_observation: true)"},
     .min_nq = 3,
     .perturb = UniformNoise,
     .position = RootX,
     .observe = ObserveWithClippedVelocity,
     .evaluate = EvaluateWalker2d},
};

}  // namespace

absl::Span<const MujocoTask> MujocoTasks() { return kTasks; }

}  // namespace troupe
