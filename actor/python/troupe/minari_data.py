"""Minari's data sets: HDF5, a group for each episode (minari.farama.org, Dataset Standards)."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from troupe.datasets import Choice, DataError, Episode, check_flags, library
from troupe.layout import Column, Layout

_FILE = "main_data.hdf5"


class MinariDataset:
    """The folder of a data set, or its folder `data`."""

    def __init__(self, path: pathlib.Path, choice: Choice):
        self._h5py = library("h5py")
        folder = path / "data" if (path / "data" / _FILE).is_file() else path
        self._file = folder / _FILE
        if not self._file.is_file():
            raise DataError(f"{path} holds no {_FILE}")
        metadata = self._metadata(folder)
        self.num_episodes = int(metadata["total_episodes"])
        self.num_steps = int(metadata["total_steps"])
        observation = _space(metadata, "observation_space")
        self._observations = {name: part for name, part in _leaves("observation", observation)
                              if name not in choice.skip}
        self.left_out = tuple(sorted(choice.skip))
        self._action = _space(metadata, "action_space")
        columns = [_observation_column(name, space) for name, space in self._observations.items()]
        if not columns:
            raise DataError("no columns of observations are left")
        self.layout = Layout(*columns, _action_column(self._action), Column("reward"),
                             environment=_environment(metadata))
        self.remarks: tuple[str, ...] = ()

    def _metadata(self, folder: pathlib.Path) -> Mapping[str, Any]:
        """Of metadata.json, or, in older data sets, of the file's attributes."""
        if (folder / "metadata.json").is_file():
            metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        else:
            with self._h5py.File(self._file, "r") as file:
                metadata = dict(file.attrs)
        for key in ("total_episodes", "total_steps"):
            if key not in metadata:
                raise DataError(f"{folder}: the metadata lack '{key}'")
        return metadata

    def episodes(self) -> Iterator[Episode]:
        """In the order of their numbers."""
        cut = 0
        with self._h5py.File(self._file, "r") as file:
            names = sorted((name for name in file if name.startswith("episode_")),
                           key=lambda name: int(name.removeprefix("episode_")))
            for name in names:
                episode = self._episode(int(name.removeprefix("episode_")), file[name])
                cut += not (episode.terminated or episode.truncated)
                yield episode
        if cut:
            self.remarks = (f"{cut} episodes end without terminating or being truncated",)

    def _episode(self, index: int, group: Any) -> Episode:
        rewards = _array(group, "rewards", "reward", index)
        observations = {
            name: _array(group, "/".join(["observations", *name.split(".")[1:]]), name, index)
            for name in self._observations}
        actions = _array(group, "actions", "action", index)
        if self._action["type"] == "Discrete":
            actions = actions[:, None] - self._action.get("start", 0)
        return Episode(
            index, observations, {"action": actions, "reward": rewards},
            terminated=check_flags(_array(group, "terminations", "terminations", index),
                                   "terminations", index),
            truncated=check_flags(_array(group, "truncations", "truncations", index),
                                  "truncations", index))


def _array(group: Any, path: str, column: str, index: int) -> np.ndarray:
    if path not in group or not hasattr(group[path], "dtype"):
        raise DataError(f"column '{column}': episode {index} has no data set '{path}'")
    if group[path].dtype.kind == "O":
        raise DataError(f"column '{column}': holds JPEG images or text, which are not brought in; "
                        f"--skip {column} leaves it out")
    return group[path][()]


def _space(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    if key not in metadata:
        raise DataError(f"the metadata have no '{key}': a data set that leaves its spaces to its "
                        "environment has to be saved again by a newer Minari")
    return json.loads(metadata[key])


def _leaves(name: str, space: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of columns and the spaces that they have."""
    if space["type"] == "Dict":
        for key, part in space["subspaces"].items():
            yield from _leaves(f"{name}.{key}", part)
    elif space["type"] == "Tuple":
        for i, part in enumerate(space["subspaces"]):
            yield from _leaves(f"{name}._index_{i}", part)
    else:
        yield name, space


def _observation_column(name: str, space: dict[str, Any]) -> Column:
    if space["type"] != "Box":
        raise DataError(f"column '{name}': a space of type {space['type']} where Box is due; "
                        f"--skip {name} leaves it out")
    images = np.dtype(space["dtype"]) == np.uint8
    return Column(name, np.uint8 if images else np.float32, tuple(space["shape"]))


def _action_column(space: dict[str, Any]) -> Column:
    if space["type"] == "Discrete":
        return Column("action", np.int32, (1,), num_choices=space["n"])
    if space["type"] == "Box" and np.issubdtype(np.dtype(space["dtype"]), np.floating):
        return Column("action", np.float32, tuple(space["shape"]), np.array(space["low"], float),
                      np.array(space["high"], float))
    raise DataError(f"column 'action': a space of type {space['type']} where Box of floats or "
                    "Discrete is due")


def _environment(metadata: Mapping[str, Any]) -> str:
    try:
        return str(json.loads(metadata["env_spec"])["id"])
    except (KeyError, ValueError, TypeError):
        return str(metadata.get("dataset_id", ""))
