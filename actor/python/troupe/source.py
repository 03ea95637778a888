"""Where a policy comes from: a run, one of its checkpoints, or a folder that was published."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format

from .learning_curve import Evaluation, read_evaluations
from .policy import Policy, find_image
from .proto import config_pb2

CONFIG_FILE = "config.txtpb"
EVALUATIONS_FILE = "evaluations.jsonl"


@dataclass(frozen=True)
class Source:
    """A policy, and what is known of its run."""

    path: pathlib.Path
    folder: pathlib.Path  # of the run, or where the policy's file lies
    policy: Policy
    image: bytes  # of the policy: safetensors
    config_text: str
    config: Any   # troupe.proto.Config
    evaluations: list[Evaluation]

    @property
    def environment_id(self) -> str:
        environment = self.config.environment
        if environment.HasField("gymnasium"):
            return environment.gymnasium.id
        return environment.id

    @property
    def algorithm(self) -> str:
        return "PPO" if self.config.learner.HasField("ppo") else "SAC"

    def evaluation(self) -> Evaluation | None:
        """That of this very policy; none if it was not evaluated."""
        version = self.policy.metadata.version
        found = [e for e in self.evaluations if e["policy_version"] == version]
        return found[-1] if found else None


def find(path: str | os.PathLike[str], config: str | os.PathLike[str] | None = None) -> Source:
    """`config`: a file to be taken for the run's configuration.

    FileNotFoundError or ValueError say what is not there, or wrong with it.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {path}")
    found = find_image(path)
    folder = found.folder
    if found.checkpoint is None:
        text = _read_text(folder / CONFIG_FILE)
    else:
        text = found.checkpoint.config().get("config", "")
        folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    if config is not None:
        text = pathlib.Path(config).read_text(encoding="utf-8")
    return Source(path, folder, Policy.from_image(found.image), found.image, text, _parse(text),
                  evaluations_of(folder))


def _read_text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _parse(text: str) -> Any:
    """Settings of another version of Troupe that are unknown to this one are left out."""
    try:
        return text_format.Parse(text, config_pb2.Config(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ValueError(f"the configuration is wrong: {error}") from error


def evaluations_of(folder: str | os.PathLike[str]) -> list[Evaluation]:
    """Of a run's folder, or of one that was published; empty if there are none."""
    folder = pathlib.Path(folder)
    for path in (folder / "evaluator" / EVALUATIONS_FILE, folder / EVALUATIONS_FILE):
        if path.is_file():
            return read_evaluations(path)
    return []
