"""The environment of a run, made by Gymnasium, and what its policy sees of it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from .policy_metadata import PolicyMetadata

# What stays of an observation without velocities; of MuJoCo tasks it follows from their structure.
_WITHOUT_VELOCITIES = {"CartPole-v1": [0, 2], "Pendulum-v1": [0, 1], "Acrobot-v1": [0, 1, 2, 3],
                       "MountainCarContinuous-v0": [0]}
# Settings that are not keywords of the environment.
_NOT_KEYWORDS = ("id", "gymnasium", "max_episode_steps", "hide_velocities")


class CannotRender(RuntimeError):
    """Says what is missing, and what to install."""


def make(config: Any, **kwargs: Any) -> Any:
    """gymnasium.make as the run's configuration says; CannotRender if there is no Gymnasium."""
    try:
        import gymnasium
    except ImportError as error:
        raise CannotRender("playing needs the Python package gymnasium: "
                           "pip install 'troupe[play]'") from error
    if config.HasField("gymnasium"):
        if config.gymnasium.module:
            importlib.import_module(config.gymnasium.module)
        keywords, name = json.loads(config.gymnasium.kwargs_json), config.gymnasium.id
    else:
        keywords, name = _keywords(config), config.id
    if config.HasField("max_episode_steps"):
        kwargs["max_episode_steps"] = config.max_episode_steps
    return gymnasium.make(name, **keywords, **kwargs)


def _keywords(config: Any) -> dict[str, Any]:
    keywords = {}
    for field, value in config.ListFields():
        if field.name in _NOT_KEYWORDS:
            continue
        is_interval = field.message_type is not None
        keywords[field.name] = (value.low, value.high) if is_interval else value
    return keywords


def choose_renderer(env_id: str) -> None:
    """Lets pictures be drawn without a screen.  Before MuJoCo is imported.

    CannotRender says why that is not possible.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if "MUJOCO_GL" in os.environ or not _may_be_mujoco(env_id):
        return
    faults = []
    for library in ("egl", "osmesa"):
        tried = subprocess.run(
            [sys.executable, "-c", "import mujoco; mujoco.GLContext(16, 16).make_current()"],
            env={**os.environ, "MUJOCO_GL": library}, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = library
            return
        faults.append(f"{library}: {(tried.stderr.strip().splitlines() or ['it failed'])[-1]}")
    raise CannotRender(f"MuJoCo cannot render without a screen ({'; '.join(faults)}). On Debian: "
                       "apt-get install libegl1 libgl1-mesa-dri, or libosmesa6; or set MUJOCO_GL")


def _may_be_mujoco(env_id: str) -> bool:
    """Not of Gymnasium's own environments that are of another kind."""
    import gymnasium

    if importlib.util.find_spec("mujoco") is None:
        return False
    entry = str(gymnasium.spec(env_id).entry_point) if env_id in gymnasium.registry else ""
    return "mujoco" in entry or not entry.startswith("gymnasium.envs.")


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
        self._kept = _kept(env, env_id) if hide_velocities else None
        self._encoder = metadata.encoder
        self._frames: deque[np.ndarray] = deque()
        vector, image = self._split(env.observation_space.sample())
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
        vector = vector[None].astype(np.float32)
        if self._encoder is None or image is None:
            return Seen(vector, None)
        missing = self._encoder.frame_stack - len(self._frames)
        self._frames.extend([image] * (missing if not self._frames else 1))
        while len(self._frames) > self._encoder.frame_stack:
            self._frames.popleft()
        return Seen(vector, np.stack(self._frames)[None])

    def _split(self, observation: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The parts of a Dict or Tuple one after the other, and the image among them."""
        if self._kept is not None:
            return np.ravel(observation)[self._kept], None
        parts = _parts(observation)
        images = [part for part in parts if part.dtype == np.uint8 and part.ndim == 3]
        vectors = [part.ravel() for part in parts if not any(part is image for image in images)]
        if len(images) > 1:
            raise ValueError("observations have more than one image")
        return np.concatenate([*vectors, np.zeros(0)]), images[0] if images else None


def _parts(observation: Any) -> list[np.ndarray]:
    if isinstance(observation, dict):
        return [part for key in sorted(observation) for part in _parts(observation[key])]
    if isinstance(observation, tuple):
        return [part for element in observation for part in _parts(element)]
    return [np.asarray(observation)]


def _kept(env: Any, env_id: str) -> np.ndarray:
    """Indices of what is no velocity."""
    if env_id in _WITHOUT_VELOCITIES:
        return np.array(_WITHOUT_VELOCITIES[env_id])
    structure = getattr(env.unwrapped, "observation_structure", None)
    if structure is None:
        raise ValueError(f"which elements of {env_id}'s observations are velocities is not known")
    kept, begin = [], 0
    for name in ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"):
        size = structure.get(name, 0)
        if name not in ("qvel", "cvel"):
            kept += range(begin, begin + size)
        begin += size
    return np.array(kept)


def to_action(space: Any, action: np.ndarray) -> Any:
    """`action`: [action_size], as Policy gives it."""
    if np.issubdtype(action.dtype, np.integer):
        return int(action[0]) + int(getattr(space, "start", 0)) if space.shape == () else (
            action.reshape(space.shape))
    return action.reshape(space.shape).astype(space.dtype)
