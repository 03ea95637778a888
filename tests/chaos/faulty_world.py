"""Pendulum, of which one process at a time fails again and again, in one way after the other.

It appends a line to the file TROUPE_FAULTS each time: what it is about to do.
"""
import fcntl
import os
import time

import gymnasium
import numpy as np

FAULTS = ("raise", "exit", "hang", "nan", "shape", "slow_reset")
STEPS_BETWEEN = 250  # more than the evaluator's one episode has
SLOW_SECONDS = 1.0


class FaultyPendulum(gymnasium.Wrapper):
    def __init__(self, **kwargs):
        super().__init__(gymnasium.make("Pendulum-v1", **kwargs))
        self._file = open(os.environ["TROUPE_FAULTS"], "a+", encoding="utf-8")
        self._steps = 0
        self._is_faulty = False

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self._steps % STEPS_BETWEEN == 0:
            self._is_faulty = self._is_faulty or self._has_lock()
            if self._is_faulty:
                observation = self._fail(observation)
        return observation, reward, terminated, truncated, info

    def reset(self, **kwargs):
        if self._last() == "slow_reset" and (self._is_faulty or self._has_lock()):
            self._write("slept")
            time.sleep(SLOW_SECONDS)
        return self.env.reset(**kwargs)

    def _has_lock(self):
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    def _last(self):
        self._file.seek(0)
        return ([""] + self._file.read().split())[-1]

    def _write(self, word):
        self._file.write(word + "\n")
        self._file.flush()

    def _fail(self, observation):
        self._file.seek(0)
        done = [word for word in self._file.read().split() if word in FAULTS]
        fault = FAULTS[len(done) % len(FAULTS)]
        self._write(fault)
        if fault == "raise":
            raise RuntimeError("the pendulum has come off")
        if fault == "exit":
            os._exit(3)
        if fault == "hang":
            time.sleep(3600)
        if fault == "nan":
            return observation * np.float32(np.nan)
        if fault == "shape":
            return observation[:1]
        return observation


gymnasium.register("FaultyPendulum-v0", FaultyPendulum, max_episode_steps=200)
