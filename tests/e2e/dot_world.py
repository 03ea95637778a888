"""A world in which every episode is the same: a dot jumps about, and the action is to say whether it
went to the right.  Who sees one frame only, or another order of frames, cannot know.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 40
WIDTH = 12


class Dot(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Dict({
        "camera": spaces.Box(0, 255, (8, WIDTH), np.uint8), "gear": spaces.Discrete(3, start=1),
        "mood": spaces.Box(0, 1, (1,), np.float32)})
    action_space = spaces.Discrete(2, start=3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self._step = 0

    def _place(self, step):
        return (7 * step * step + 3 * step) % (WIDTH - 2)

    def _see(self):
        camera = np.zeros((8, WIDTH), np.uint8)
        place = self._place(self._step)
        camera[3:6, place:place + 2] = 255
        return {"camera": camera, "gear": 2,
                "mood": np.full(1, 0.5, np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._see(), {}

    def step(self, action):
        went_right = self._place(self._step) > self._place(self._step - 1)
        reward = float((action == 4) == went_right)
        self._step += 1
        return self._see(), reward, False, self._step >= LENGTH, {}

    def render(self):
        grey = np.kron(self._see()["camera"], np.ones((20, 20), np.uint8))
        return np.repeat(grey[:, :, None], 3, axis=2)


gymnasium.register("Dot-v0", Dot)
