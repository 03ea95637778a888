"""A world of pixels for tests: a dot falls, drifting, and is to be caught."""

import gymnasium
import numpy as np
from gymnasium import spaces

CELLS, PIXELS = 8, 3  # the image is CELLS * PIXELS high and wide
DROP = CELLS - 1      # steps of an episode


class CatchDot(gymnasium.Env):
    """The dot falls a cell a step and drifts a cell to one side, which one frame does not show; it
    bounces off the walls. The paddle in the lowest row goes left or right by up to a cell and a half.
    The only reward is 1 at the end, for a dot that is caught: at most a cell away."""

    observation_space = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 1), np.uint8)

    def __init__(self, discrete=False):
        self._discrete = discrete
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._row = 0
        self._column = int(self.np_random.integers(CELLS))
        self._drift = int(self.np_random.choice([-1, 1]))
        self._paddle = (CELLS - 1) / 2
        return self._image(), {}

    def step(self, action):
        way = action - 1 if self._discrete else float(action[0])
        self._paddle = min(max(self._paddle + 1.5 * way, 0), CELLS - 1)
        if not 0 <= self._column + self._drift < CELLS:
            self._drift = -self._drift
        self._column += self._drift
        self._row += 1
        ended = self._row == DROP
        caught = ended and abs(self._paddle - self._column) <= 1
        return self._image(), float(caught), ended, False, {}

    def _image(self):
        image = np.zeros(self.observation_space.shape, np.uint8)
        for row, column, shade in ((CELLS - 1, self._paddle, 120), (self._row, self._column, 255)):
            x = round(column * PIXELS)
            image[row * PIXELS:(row + 1) * PIXELS, x:x + PIXELS] = shade
        return image


gymnasium.register("CatchDot-v0", CatchDot)
