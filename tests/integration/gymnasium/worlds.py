"""Environments for tests of the bridge."""
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces

# What element 0 of an action has an environment do.
OBEY, RAISE, EXIT, HANG, NAN, SHAPE, DTYPE, OLD_STEP, TERMINATE, TRUNCATE, WORDS = range(11)


class Counter(gymnasium.Env):
    """Shows [number of steps, seed of the episode, last action]; the reward is the number of steps.

    Its action, when it is a whole number, tells it how to go wrong.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(-100, 100, (1,), np.float32)

    def __init__(self, reset_seconds=0.0, step_seconds=0.0):
        self._reset_seconds, self._step_seconds = reset_seconds, step_seconds
        self._steps = self._seed = 0

    def reset(self, *, seed=None, options=None):
        time.sleep(self._reset_seconds)
        # Gymnasium's way: without a seed the random numbers go on.
        self._steps, self._seed = 0, self._seed + 0.5 if seed is None else seed
        return self._observation(0), {}

    def step(self, action):
        time.sleep(self._step_seconds)
        self._steps += 1
        order = action[0]
        observation = self._observation(action[0])
        if order == RAISE:
            raise RuntimeError("the arm is on fire")
        if order == EXIT:
            os._exit(7)
        if order == HANG:
            time.sleep(3600)
        if order == NAN:
            observation[1] = np.nan
        if order == SHAPE:
            observation = observation[:2]
        if order == DTYPE:
            observation = observation.astype(np.complex128)
        if order == OLD_STEP:
            return observation, 0.0, False, {}
        if order == WORDS:
            print("a word on standard output", flush=True)
        return observation, float(self._steps), bool(order == TERMINATE), bool(order == TRUNCATE), {}

    def _observation(self, last):
        return np.array([self._steps, self._seed, last], np.float64)


class Mixed(gymnasium.Env):
    """Observations and actions of every kind."""

    def __init__(self):
        self.observation_space = spaces.Dict({
            "arm": spaces.Dict({"joints": spaces.Box(-1, 1, (2, 2), np.float32),
                                "held": spaces.Discrete(3, start=5)}),
            "camera": spaces.Box(0, 255, (4, 5, 3), np.uint8),
            "depth": spaces.Box(0, 255, (4, 5), np.uint8),
            "pair": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
        })
        self.action_space = spaces.MultiDiscrete([3, 4])

    def _observation(self, n):
        return {
            "arm": {"joints": np.array([[n, 0.25], [0.5, 0.75]], np.float32), "held": 5 + n % 3},
            "camera": np.full((4, 5, 3), n, np.uint8),
            "depth": np.arange(20, dtype=np.uint8).reshape(4, 5) + np.uint8(n),
            "pair": (np.array([n % 2, n % 3]), np.array([1, 0], np.int8)),
        }

    def reset(self, *, seed=None, options=None):
        return self._observation(0), {}

    def step(self, action):
        assert action.dtype == np.int64 and action.shape == (2,), action
        return self._observation(int(action[0]) + int(action[1])), 0.5, False, False, {}


class Words(Counter):
    """Observations of a space that cannot be learned from."""

    observation_space = spaces.Text(5)


class Lazy(Counter):
    """Its second reset fails, unless it is in a new process."""

    def reset(self, *, seed=None, options=None):
        if self._steps > 0:
            sys.exit("no second episode")
        return super().reset(seed=seed)


class Counters(gymnasium.vector.VectorEnv):
    """Counter as a vector of its own; shows the member's number of episodes instead of a seed."""

    single_observation_space = Counter.observation_space
    single_action_space = Counter.action_space

    def __init__(self, num_envs, mode="NEXT_STEP", max_episode_steps=1000, wrong=""):
        self.num_envs, self._mode, self._wrong = num_envs, mode, wrong
        self._max_steps = max_episode_steps
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode[mode] if mode else None}
        self._steps = np.zeros(num_envs)
        self._episodes = np.zeros(num_envs)
        self._is_over = np.zeros(num_envs, bool)

    def _begin(self, mask):
        self._steps[mask] = 0
        self._episodes[mask] += 1

    def _observation(self, actions):
        return np.stack([self._steps, self._episodes, actions], 1)

    def reset(self, *, seed=None, options=None):
        self._is_over[:] = False
        mask = options["reset_mask"] if options else np.ones(self.num_envs, bool)
        if self._mode == "DISABLED" and options is None:
            self._episodes[:] = 0
        self._begin(mask)
        return self._observation(np.where(mask, 0, -1)), {}

    def step(self, actions):
        assert actions.dtype == np.float32 and actions.shape == (self.num_envs, 1), actions
        if self._mode == "DISABLED":
            assert not self._is_over.any()
        orders = np.where(self._is_over, OBEY, actions[:, 0])
        if np.any(orders == RAISE):
            raise RuntimeError("the arms are on fire")
        resets = self._is_over.copy()
        self._steps += 1
        self._begin(resets)
        observation, infos = self._observation(np.where(resets, 0, orders)), {}
        rewards = np.where(resets, 0.0, self._steps)
        terminated = orders == TERMINATE
        truncated = ((orders == TRUNCATE) | (self._steps >= self._max_steps)) & ~resets
        over = terminated | truncated
        if self._mode == "NEXT_STEP":
            self._is_over = over
        if self._mode == "SAME_STEP" and over.any():
            if self._wrong != "no_final_obs":
                final = np.full(self.num_envs, None, object)
                for i in np.flatnonzero(over):
                    final[i] = observation[i]
                infos = {"final_obs": final, "_final_obs": over}
            self._begin(over)
            observation = self._observation(np.where(over, 0, orders))
        return observation[:, :2] if self._wrong == "shape" else observation, rewards, terminated, (
            truncated), infos


class Parts(Counter):
    """Its action is of parts; shows [number of steps, sum of the first part, the second]."""

    action_space = spaces.Dict({"arm": spaces.Box(-1, 1, (2, 2), np.float32),
                                "gripper": spaces.Tuple((spaces.Box(0, 5, (1,), np.float64),))})

    def step(self, action):
        self._steps += 1
        assert action["arm"].shape == (2, 2) and action["arm"].dtype == np.float32
        return np.array([self._steps, action["arm"].sum(), action["gripper"][0][0]]), 0.0, False, (
            False), {}


class Choices(Counter):
    """The same of choices."""

    action_space = spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiBinary(2),
                                 spaces.MultiDiscrete([2, 4])))

    def step(self, action):
        one, two, three = action
        assert self.action_space.contains((one, two.astype(np.int8), three)), action
        return np.array([float(one), two.sum(), three[1]]), 0.0, False, False, {}


class Both(Counter):
    action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (1,))))


gymnasium.register("Counters-v0", vector_entry_point=Counters)

for world in (Parts, Choices, Both, Counter, Mixed, Words, Lazy):
    gymnasium.register(f"{world.__name__}-v0", world)
