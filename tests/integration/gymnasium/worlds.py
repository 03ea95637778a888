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
        self._steps, self._seed = 0, seed
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


for world in (Counter, Mixed, Words, Lazy):
    gymnasium.register(f"{world.__name__}-v0", world)
