"""Holds Troupe's environments against Gymnasium's, step for step.

Actions are float64 on both sides: given float32 ones, Gymnasium computes the control cost in
float32, which differs in the eighth digit.

For each case Gymnasium's environment is reset and stepped with random actions; the state after each
reset and the actions go to Troupe's probe, whose observations, rewards and ends must be the same.
Then Troupe's own resets must have the distribution of Gymnasium's.

    python env_parity.py --server build/release/tests/env_parity_server [--full] [--only Hopper]

Without --full: fewer seeds and steps of the same cases.  Exit code 1 if anything differs.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types

import gymnasium
import numpy as np

# Gymnasium imports it for rendering only; nothing is rendered here.
sys.modules.setdefault("imageio", types.ModuleType("imageio"))

MUJOCO_TOLERANCE = 1e-9
# Classic control computes partly in float32 (MountainCarContinuous's state), or rounds to it.
CLASSIC_TOLERANCE = 1e-5
INF = float("inf")

UNSEEN = {"exclude_current_positions_from_observation": False}
# Keyword sets besides the default one.
CASES = {
    "HalfCheetah-v5": [
        {**UNSEEN, "forward_reward_weight": 0.5, "ctrl_cost_weight": 0.3},
        {"frame_skip": 2, "reset_noise_scale": 0.3, "max_episode_steps": 37},
    ],
    "Hopper-v5": [
        {**UNSEEN, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.1, "healthy_reward": 0.5},
        {"terminate_when_unhealthy": False, "healthy_state_range": (-5.0, 5.0)},
        {"healthy_z_range": (0.5, 1.2), "healthy_angle_range": (-0.05, INF), "frame_skip": 3},
    ],
    "Walker2d-v5": [
        {**UNSEEN, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.1, "healthy_reward": 0.5},
        {"terminate_when_unhealthy": False, "reset_noise_scale": 0.05},
        {"healthy_z_range": (1.1, 1.5), "healthy_angle_range": (-0.3, 0.2), "frame_skip": 2},
        {"xml_file": "walker2d.xml"},
    ],
    "Ant-v5": [
        {**UNSEEN, "contact_force_range": (-0.3, 2.0), "contact_cost_weight": 0.05},
        {"include_cfrc_ext_in_observation": False, "healthy_z_range": (0.4, 0.9), "main_body": 3},
        {"terminate_when_unhealthy": False, "forward_reward_weight": 3.0, "ctrl_cost_weight": 0.1,
         "healthy_reward": 0.25, "reset_noise_scale": 0.2, "frame_skip": 3},
    ],
    "Humanoid-v5": [
        {**UNSEEN, "include_cinert_in_observation": False, "contact_cost_weight": 1e-3,
         "contact_cost_range": (0.5, 4.0)},
        {"include_cvel_in_observation": False, "include_qfrc_actuator_in_observation": False,
         "healthy_reward": 1.0, "forward_reward_weight": 0.5, "ctrl_cost_weight": 1.0},
        {"include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False,
         "healthy_z_range": (1.2, 1.45), "reset_noise_scale": 0.05, "frame_skip": 3},
    ],
    "HumanoidStandup-v5": [
        {**UNSEEN, "include_cinert_in_observation": False, "impact_cost_weight": 1e-3,
         "impact_cost_range": (0.5, 4.0), "uph_cost_weight": 2.0},
        {"include_cvel_in_observation": False, "include_qfrc_actuator_in_observation": False,
         "include_cfrc_ext_in_observation": False, "ctrl_cost_weight": 1.0, "frame_skip": 3},
    ],
    "Swimmer-v5": [
        {**UNSEEN, "forward_reward_weight": 2.0, "ctrl_cost_weight": 0.1},
        {"frame_skip": 2, "reset_noise_scale": 0.3, "max_episode_steps": 50},
    ],
    "Reacher-v5": [
        {"reward_dist_weight": 2.0, "reward_control_weight": 0.1},
        {"frame_skip": 4, "max_episode_steps": 20},
    ],
    "Pusher-v5": [
        {"reward_near_weight": 2.0, "reward_dist_weight": 0.3, "reward_control_weight": 1.0},
        {"frame_skip": 2, "max_episode_steps": 30},
    ],
    "InvertedPendulum-v5": [
        {"reset_noise_scale": 0.1},
        {"frame_skip": 1, "max_episode_steps": 5},
    ],
    "InvertedDoublePendulum-v5": [
        {"healthy_reward": 3.0, "reset_noise_scale": 0.02},
        {"frame_skip": 2, "max_episode_steps": 4},
    ],
    "Pendulum-v1": [{"g": 3.7}],
    "CartPole-v1": [{"sutton_barto_reward": True}, {"max_episode_steps": 12}],
    "MountainCarContinuous-v0": [{"goal_velocity": 0.02}],
    "Acrobot-v1": [{"max_episode_steps": 90}],
}


def text_format(env_id, options):
    """The proto::Environment of a Gymnasium id with its keywords."""
    def value(v):
        if isinstance(v, bool):
            return str(v).lower()
        return json.dumps(v) if isinstance(v, str) else repr(v)

    words = [f'id: "{env_id}"']
    for name, v in options.items():
        if isinstance(v, tuple):
            words.append(f"{name} {{ low: {v[0]!r} high: {v[1]!r} }}")
        else:
            words.append(f"{name}: {value(v)}")
    return " ".join(words)


class Server:
    """The test program that runs probes."""

    def __init__(self, path):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True)
        self._actions = tempfile.NamedTemporaryFile("w", suffix=".actions", delete=False)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        os.unlink(self._actions.name)

    def ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        lines = []
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server died of {request}")
            line = json.loads(line)
            if "status" in line:
                if line["status"]:
                    raise RuntimeError(f"{line['status']}; request {request}")
                return lines
            lines.append(line)

    def probe(self, environment, actions, **request):
        self._actions.seek(0)
        self._actions.truncate()
        for i, action in enumerate(actions):
            numbers = [repr(float(a)) for a in np.atleast_1d(action)]
            self._actions.write(f"[{', '.join(numbers)}]\n" if i % 2 else " ".join(numbers) + "\n")
        self._actions.flush()
        return self.ask({"environment": environment, "actions": self._actions.name, **request})


def make(env_id, options):
    return gymnasium.make(env_id, disable_env_checker=True, **options)


def is_mujoco(env):
    return hasattr(env.unwrapped, "model")


def state_of(env):
    u = env.unwrapped
    state = np.concatenate([u.data.qpos, u.data.qvel]) if is_mujoco(env) else u.state
    return [float(x) for x in state]


class Tally:
    """What one case has compared."""

    def __init__(self, tolerance):
        self.tolerance = tolerance
        self.steps = self.terminated = self.truncated = 0
        self.worst = 0.0
        self.faults = []

    def compare(self, what, ours, theirs):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        if ours.shape != theirs.shape:
            self.faults.append(f"{what}: shape {ours.shape} against {theirs.shape}")
            return
        # Absolute below 1, relative above; what is not finite must be the same.
        with np.errstate(invalid="ignore"):
            error = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
        error[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0
        error = np.nan_to_num(error, nan=np.inf).max(initial=0)
        self.worst = max(self.worst, error)
        if error > self.tolerance:
            self.faults.append(f"{what}: differs by {error:.3g}")


def run_episode(server, env, environment, rng, seed, max_steps, scale, tally):
    """Steps both to the end of one episode or max_steps; returns the steps done."""
    observation, _ = env.reset(seed=seed)
    state, theirs, actions = state_of(env), [(observation,)], []
    while len(actions) < max_steps:
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            action = int(rng.integers(env.action_space.n))
        else:
            space = env.action_space
            action = scale * rng.uniform(space.low.astype(np.float64), space.high)
        actions.append(action)
        theirs.append(env.step(action)[:4])
        if theirs[-1][2] or theirs[-1][3]:
            break
    ours = server.probe(environment, actions, state=state)
    if len(ours) != len(theirs):
        tally.faults.append(f"episode of {len(ours) - 1} steps, Gymnasium's has {len(actions)}")
    for t, (mine, other) in enumerate(zip(ours, theirs)):
        where = f"reset {seed}, step {t}"
        tally.compare(f"{where}, observation", mine["observation"], other[0])
        if t == 0:
            continue
        tally.compare(f"{where}, reward", [mine["reward"]], [other[1]])
        if (mine["terminated"], mine["truncated"]) != (bool(other[2]), bool(other[3])):
            tally.faults.append(f"{where}: ends differ: {mine} against {other[2:]}")
        tally.terminated += bool(other[2])
        tally.truncated += bool(other[3])
    tally.steps += len(actions)
    return len(actions)


def check_spec(server, env, environment, tally):
    (spec,) = server.ask({"environment": environment})
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    expected = {
        "observation_size": env.observation_space.shape[0],
        "action_size": 1 if discrete else env.action_space.shape[0],
        "action_low": [] if discrete else env.action_space.low.tolist(),
        "action_high": [] if discrete else env.action_space.high.tolist(),
        "num_choices": [int(env.action_space.n)] if discrete else [],
        "max_episode_steps": env.spec.max_episode_steps,
    }
    if spec != expected:
        tally.faults.append(f"spec {spec} against {expected}")


def check_steps(server, env_id, options, seeds, steps):
    env, environment = make(env_id, options), text_format(env_id, options)
    tally = Tally(MUJOCO_TOLERANCE if is_mujoco(env) else CLASSIC_TOLERANCE)
    check_spec(server, env, environment, tally)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        # Every second seed leaves the bounds of the actions, to see them clipped alike.
        scale, left, episode = 1.0 + 0.3 * (seed % 2), steps, 0
        while left > 0 and len(tally.faults) < 5:
            left -= run_episode(server, env, environment, rng, 1000 * seed + episode, left, scale,
                                tally)
            episode += 1
    env.close()
    return tally


def ks_distance(a, b):
    """Two-sample Kolmogorov-Smirnov statistic of each column."""
    points = np.sort(np.concatenate([a, b]), axis=0)
    distance = np.zeros(a.shape[1])
    for j in range(a.shape[1]):
        cdf_a = np.searchsorted(np.sort(a[:, j]), points[:, j], side="right") / len(a)
        cdf_b = np.searchsorted(np.sort(b[:, j]), points[:, j], side="right") / len(b)
        distance[j] = np.abs(cdf_a - cdf_b).max()
    return distance


def check_resets(server, env_id, resets):
    """Distribution of the first observation: each element, and sums of them two by two."""
    tally = Tally(0)
    env = make(env_id, {})
    if hasattr(env.unwrapped, "_exclude_current_positions_from_observation"):
        env = make(env_id, UNSEEN)
    options = UNSEEN if "exclude_current_positions_from_observation" in env.spec.kwargs else {}
    theirs = np.array([env.reset(seed=s)[0] for s in range(resets)], np.float64)
    size = 1 if isinstance(env.action_space, gymnasium.spaces.Discrete) else env.action_space.shape
    lines = server.probe(text_format(env_id, {**options, "max_episode_steps": 1}),
                         np.zeros((resets, np.prod(size, dtype=int))), seed=10**6,
                         **{"continue": True})
    ours = np.array([line["observation"] for line in lines[::2]], np.float64)
    env.close()
    tally.steps = resets
    if ours.shape != theirs.shape:
        tally.faults.append(f"shape {ours.shape} against {theirs.shape}")
        return tally
    spread = theirs.std(axis=0)
    fixed = spread < 1e-12 * np.maximum(1, np.abs(theirs).max(axis=0))
    if np.abs(ours[:, fixed] - theirs[0, fixed]).max(initial=0) > 1e-9:
        tally.faults.append("an element that Gymnasium never varies differs")
    a, b = ours[:, ~fixed] / spread[~fixed], theirs[:, ~fixed] / spread[~fixed]
    a, b = np.hstack([a, a + np.roll(a, 1, 1)]), np.hstack([b, b + np.roll(b, 1, 1)])
    # A false alarm in one element of one task has probability 1e-6; the seeds are fixed anyway.
    limit = np.sqrt(-np.log(1e-6 / 2) / 2) * np.sqrt(2 / resets)
    distance = ks_distance(a, b)
    tally.worst = distance.max(initial=0)
    if tally.worst > limit:
        tally.faults.append(f"{(distance > limit).sum()} elements have another distribution: "
                            f"Kolmogorov-Smirnov {tally.worst:.3f} > {limit:.3f}")
    return tally


def report(env_id, case, tally):
    verdict = "ok" if not tally.faults else "DIFFERS"
    print(f"{env_id:26} {case:8} {tally.steps:6} {tally.terminated:5} {tally.truncated:5} "
          f"{tally.worst:9.2e}  {verdict}", flush=True)
    for fault in tally.faults[:5]:
        print(f"    {fault}", flush=True)
    return bool(tally.faults)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", required=True, help="path of env_parity_server")
    parser.add_argument("--full", action="store_true", help="5 seeds x 1,000 steps of every case")
    parser.add_argument("--only", default="", help="part of the ids to check")
    args = parser.parse_args()

    start, faults = time.time(), 0
    server = Server(os.path.abspath(args.server))
    # Gymnasium's MuJoCo writes MUJOCO_LOG.TXT into the working directory.
    os.chdir(tempfile.mkdtemp(prefix="env_parity."))
    print(f"{'id':26} {'case':8} {'steps':>6} {'term':>5} {'trunc':>5} {'worst':>9}")
    for env_id, option_sets in CASES.items():
        if args.only not in env_id:
            continue
        for i, options in enumerate([{}] + option_sets):
            seeds, steps = (5, 1000) if args.full else (2, 1000) if i == 0 else (2, 200)
            name = "default" if i == 0 else f"set {i}"
            faults += report(env_id, name, check_steps(server, env_id, options, seeds, steps))
        faults += report(env_id, "resets", check_resets(server, env_id,
                                                       2000 if args.full else 500))
    server.close()
    print(f"{faults} cases differ; {time.time() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
