"""The environment of a run, made by Gymnasium, and drawn without a screen."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

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


def follow_the_body(env: Any) -> None:
    """Lets MuJoCo's camera go along, where the model has one that does and Gymnasium's stands."""
    renderer: Any = getattr(env.unwrapped, "mujoco_renderer", None)
    config = getattr(renderer, "default_cam_config", None) or {}
    if getattr(renderer, "camera_id", None) != -1 or "trackbodyid" in config:
        return
    import mujoco

    renderer.camera_id = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")


def _may_be_mujoco(env_id: str) -> bool:
    """Not of Gymnasium's own environments that are of another kind."""
    import gymnasium

    if importlib.util.find_spec("mujoco") is None:
        return False
    entry = str(gymnasium.spec(env_id).entry_point) if env_id in gymnasium.registry else ""
    return "mujoco" in entry or not entry.startswith("gymnasium.envs.")
