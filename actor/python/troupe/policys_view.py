"""What a policy sees of an environment's observations, and its actions for it.

As actors have it: the parts of a Dict or Tuple one after the other, choices as one number each that
is 1 for the one taken, and one image apart (actor/gymnasium/env_child.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .policy_metadata import PolicyMetadata

# What stays of an observation without velocities; of other MuJoCo tasks it follows from their
# structure.
_WITHOUT_VELOCITIES = {"CartPole-v1": [0, 2], "Pendulum-v1": [0, 1], "Acrobot-v1": [0, 1, 2, 3],
                       "MountainCarContinuous-v0": [0], "Reacher-v5": [0, 1, 2, 3, 4, 5, 8, 9],
                       "Pusher-v5": [*range(7), *range(14, 23)],
                       "InvertedDoublePendulum-v5": [0, 1, 2, 3, 4, 8]}


@dataclass(frozen=True)
class Seen:
    """What goes into a policy."""

    vector: np.ndarray         # [1, observation_size], float32
    images: np.ndarray | None  # [1, frame_stack, height, width, channels], uint8


class PolicysView:
    """What a policy sees of an environment's observations."""

    def __init__(self, env: Any, env_id: str, hide_velocities: bool,
                 metadata: PolicyMetadata) -> None:
        """ValueError if observations are not as the policy sees them."""
        self._space = env.observation_space
        self._kept = _kept(env, env_id) if hide_velocities else None
        self._encoder = metadata.encoder
        self._frames: deque[np.ndarray] = deque()
        vector, image = self._split(self._space.sample())
        frame = self._encoder.stack_shape[1:] if self._encoder else None
        found = image.shape if image is not None else None
        if len(vector) != metadata.observation_size or found != frame:
            raise ValueError(f"{env_id} gives observations of {len(vector)} numbers and images of "
                             f"{found}, but the policy sees {metadata.observation_size} and "
                             f"{frame}")

    def first(self, observation: Any) -> Seen:
        """Of an episode."""
        self._frames.clear()
        return self.next(observation)

    def next(self, observation: Any) -> Seen:
        """Of the step after that."""
        vector, image = self._split(observation)
        if self._encoder is None or image is None:
            return Seen(vector[None], None)
        self._frames.append(image)
        while len(self._frames) < self._encoder.frame_stack:
            self._frames.append(image)
        while len(self._frames) > self._encoder.frame_stack:
            self._frames.popleft()
        return Seen(vector[None], np.stack(self._frames)[None])

    def _split(self, observation: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The numbers, float32, and the image."""
        numbers: list[np.ndarray] = [np.zeros(0)]
        images = []
        for space, value in _parts(self._space, observation):
            if _is_image(space):
                images.append(value.reshape(value.shape + (1,) * (3 - value.ndim)))
            else:
                numbers.append(_numbers(space, value))
        if len(images) > 1:
            raise ValueError("observations have more than one image")
        vector = np.concatenate(numbers).astype(np.float32)
        return (vector if self._kept is None else vector[self._kept],
                images[0] if images else None)


def _parts(space: Any, value: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """The spaces that are neither a Dict nor a Tuple, and what is in them."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _parts(part, value[key])
    elif isinstance(space, spaces.Tuple):
        for part, element in zip(space.spaces, value):
            yield from _parts(part, element)
    else:
        yield space, np.asarray(value)


def _is_image(space: Any) -> bool:
    from gymnasium import spaces

    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _numbers(space: Any, value: np.ndarray) -> np.ndarray:
    from gymnasium import spaces

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return value.ravel()
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        raise ValueError(f"observations are in a space of {type(space).__name__}")
    counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
    chosen = value.ravel() - np.ravel(space.start)
    return np.concatenate([np.arange(n) == c for n, c in zip(counts, chosen)])


def _kept(env: Any, env_id: str) -> np.ndarray:
    """Indices of what is no velocity."""
    if env_id in _WITHOUT_VELOCITIES:
        return np.array(_WITHOUT_VELOCITIES[env_id])
    structure = getattr(env.unwrapped, "observation_structure", None)
    if structure is None:
        raise ValueError(f"which elements of {env_id}'s observations are velocities is not known")
    kept: list[int] = []
    begin = 0
    for name in ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"):
        size = structure.get(name, 0)
        if name not in ("qvel", "cvel"):
            kept += range(begin, begin + size)
        begin += size
    return np.array(kept)


def to_action(space: Any, action: np.ndarray) -> Any:
    """`action`: [action_size], as Policy gives it; choices from 0."""
    if np.issubdtype(action.dtype, np.integer):
        action = action + np.ravel(getattr(space, "start", 0))
    action = action.reshape(space.shape).astype(space.dtype)
    return action if space.shape else action[()]
