"""An environment of frames, for the bench: 84x84x4 uint8, about as slow as an Atari game."""
import gymnasium
import numpy as np
from gymnasium import spaces


class Frames(gymnasium.Env):
    """Draws a ball that flies about into a new array each step."""

    observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = spaces.Discrete(4)

    def __init__(self):
        self._steps = 0
        self._position = np.zeros(2)
        self._background = np.random.default_rng(1).integers(0, 64, (4, 84, 84, 4), np.uint8)

    def reset(self, *, seed=None, options=None):
        self._steps, self._position = 0, np.random.default_rng(seed).uniform(10, 70, 2)
        return self._frame(), {}

    def step(self, action):
        self._steps += 1
        for _ in range(4):  # frames that the agent does not see
            self._position = np.clip(self._position + np.array(
                [(0, 1), (0, -1), (1, 0), (-1, 0)][action]), 4, 79)
            frame = self._frame()
        return frame, float(self._position[0] > 40), False, self._steps >= 1000, {}

    def _frame(self):
        frame = self._background[self._steps % 4].copy()
        y, x = self._position.astype(int)
        frame[y - 4:y + 5, x - 4:x + 5] = 255
        return frame


gymnasium.register("Frames-v0", Frames)
