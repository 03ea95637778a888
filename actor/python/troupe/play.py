"""Episodes of a policy as a video, with the return so far below the pictures."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import environments, policys_view
from .environments import CannotRender
from .source import Source
from .video import open_video

_STRIP_HEIGHT = 56
_LINE_HEIGHT = 24
_DEFAULT_FRAMES_PER_SECOND = 30


@dataclass(frozen=True)
class Episode:
    """How it went."""

    total_reward: float
    steps: int


def play(source: Source, output: str | os.PathLike[str], *, episodes: int = 1, seed: int = 0,
         max_steps: int | None = None, at_random: bool = False) -> list[Episode]:
    """Plays with the policy's mode, or as it explores, and writes a .mp4 or .gif.

    CannotRender says what is to be installed; ValueError what does not fit the policy.
    """
    config = source.config.environment
    try:
        environments.choose_renderer(source.environment_id)
        env = environments.make(config, render_mode="rgb_array")
        environments.follow_the_body(env)
    except ImportError as error:  # of Gymnasium's own optional packages, and of the user's module
        raise CannotRender(f"{source.environment_id} cannot be made: {error}") from error
    view = policys_view.PolicysView(env, source.environment_id, config.hide_velocities,
                                    source.policy.metadata)
    video = open_video(pathlib.Path(output),
                       env.metadata.get("render_fps") or _DEFAULT_FRAMES_PER_SECOND)
    try:
        player = _Player(source, env, view, video, at_random)
        played = [player.play(number, seed + number, max_steps) for number in range(episodes)]
        video.close()
    except Exception as error:
        if type(error).__name__ == "DependencyNotInstalled":
            raise CannotRender(f"{source.environment_id} cannot be drawn: {error}") from error
        raise
    finally:
        env.close()
    return played


class _Player:
    """One episode after another."""

    def __init__(self, source: Source, env: Any, view: policys_view.PolicysView, video: Any,
                 at_random: bool) -> None:
        self._policy = source.policy
        self._env, self._view, self._video = env, view, video
        self._act = self._policy.sample if at_random else self._policy.mode
        self._returns: list[float] = []

    def play(self, number: int, seed: int, max_steps: int | None) -> Episode:
        observation, _ = self._env.reset(seed=seed)
        seen, state = self._view.first(observation), self._policy.initial_state()
        self._returns = [0.0]
        self._show(number)
        done = False
        while not done and (max_steps is None or len(self._returns) <= max_steps):
            acted = self._act(seen.vector, state, seen.images)
            state = acted.state
            action = policys_view.to_action(self._env.action_space, acted.action[0])
            observation, reward, terminated, truncated, _ = self._env.step(action)
            seen = self._view.next(observation)
            self._returns.append(self._returns[-1] + float(reward))
            self._show(number)
            done = terminated or truncated
        return Episode(self._returns[-1], len(self._returns) - 1)

    def _show(self, number: int) -> None:
        frame = np.asarray(self._env.render())
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise CannotRender(f"the environment draws {list(frame.shape)}, no RGB picture")
        text = (f"episode {number + 1}   step {len(self._returns) - 1}   "
                f"return {self._returns[-1]:.1f}")
        self._video.add(np.concatenate([frame.astype(np.uint8),
                                        _strip(frame.shape[1], text, self._returns)]))


def _strip(width: int, text: str, returns: list[float]) -> np.ndarray:
    """Text, and the line of the return so far."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, _STRIP_HEIGHT), (24, 24, 28))
    draw = ImageDraw.Draw(picture)
    least, most = min(returns), max(returns)
    scale = _LINE_HEIGHT / max(most - least, 1e-9)
    step = width / max(len(returns) - 1, 1)
    stride = max(1, len(returns) // width)
    draw.line([(i * step, _STRIP_HEIGHT - 4 - (returns[i] - least) * scale)
               for i in range(0, len(returns), stride)], fill=(70, 110, 170), width=2)
    draw.text((8, 4), text, fill=(235, 235, 235), font=ImageFont.load_default(16))
    return np.asarray(picture)
