"""LeRobot's data sets, version 3: Parquet files of frames (huggingface.co/docs/lerobot).

A frame holds an observation, the action that followed, and, where there are any, that action's
reward ("next.reward") and whether it ended the episode ("next.done").  What came after the last
frame of an episode is not in the data set.  Where next.done is true there, the last step is kept,
and the final row repeats its observation, which nothing is bootstrapped from.  Elsewhere the last
frame becomes the final row, truncated, and its action is dropped.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from troupe.datasets import Choice, DataError, Episode, check_flags, library
from troupe.layout import Column, Layout

_REWARD, _DONE = "next.reward", "next.done"


class LeRobotDataset:
    """The folder of a data set, with meta and data."""

    def __init__(self, path: pathlib.Path, choice: Choice):
        self._parquet = library("pyarrow.parquet")
        self._path = path
        try:
            info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path} holds no meta/info.json") from None
        version = str(info.get("codebase_version", ""))
        if not version.startswith("v3."):
            raise DataError(f"{path} is of version '{version}', not v3; LeRobot converts it: "
                            "python -m lerobot.scripts.convert_dataset_v21_to_v30")
        self._features: dict[str, Any] = info["features"]
        self._choice = choice
        names = [name for name in self._features
                 if (name == "observation" or name.startswith("observation."))
                 and name not in choice.skip]
        if not names:
            raise DataError("no columns of observations are left")
        columns = [self._observation_column(name) for name in names]
        self._observations = names
        self._has_reward = _REWARD in self._features
        if not self._has_reward and choice.final_reward is None:
            raise DataError(f"column '{_REWARD}': the data set has none; --final_reward X rewards "
                            "the last step of each episode with X and the others with 0")
        self.layout = Layout(*columns, self._action_column(), Column("reward"),
                             environment=str(info.get("robot_type") or ""))
        used = {*names, "action", _REWARD, _DONE}
        self.left_out = tuple(sorted(set(self._features) - used))
        self.num_episodes = int(info["total_episodes"])
        self.num_steps = int(info["total_frames"])
        self.remarks: tuple[str, ...] = ()

    def _feature(self, name: str) -> tuple[str, tuple[int, ...]]:
        feature = self._features[name]
        return str(feature["dtype"]), tuple(int(axis) for axis in feature["shape"])

    def _observation_column(self, name: str) -> Column:
        dtype, shape = self._feature(name)
        if dtype in ("video", "image", "string"):
            raise DataError(f"column '{name}': of dtype {dtype}, which is not brought in; --skip "
                            f"{name} leaves it out")
        return Column(name, np.uint8 if dtype == "uint8" else np.float32, shape)

    def _action_column(self) -> Column:
        if "action" not in self._features:
            raise DataError("column 'action': the data set has none")
        dtype, shape = self._feature("action")
        if not dtype.startswith("float"):
            raise DataError(f"column 'action': of dtype {dtype} where floats are due")
        low, high = self._choice.action_low, self._choice.action_high
        if low is not None and high is not None:
            return Column("action", np.float32, shape, low, high)
        stats = self._path / "meta" / "stats.json"
        if not stats.is_file():
            raise DataError("column 'action': no meta/stats.json says its bounds; --action_bounds "
                            "LOW,HIGH does")
        found = json.loads(stats.read_text(encoding="utf-8"))["action"]
        return Column("action", np.float32, shape, np.reshape(found["min"], shape),
                      np.reshape(found["max"], shape))

    def episodes(self) -> Iterator[Episode]:
        """In the order of their numbers."""
        dropped = frames = 0
        for index, parts in self._groups():
            episode = self._episode(index, parts)
            length = len(parts["frame_index"])
            frames += length
            dropped += length - episode.num_steps
            yield episode
        if frames != self.num_steps:
            raise DataError(f"column 'index': {frames} frames where meta/info.json says "
                            f"{self.num_steps}")
        self.remarks = ((f"{dropped} last actions dropped, as what they led to is not in the data "
                         "set",) if dropped else ())

    def _groups(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Frames of each episode, which may go on in the next file."""
        open_index, open_parts = -1, None
        for file in sorted((self._path / "data").glob("*/*.parquet")):
            frames = self._read(file)
            indices = frames["episode_index"]
            edges = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
            for begin, end in zip(edges, edges[1:]):
                part = {name: values[begin:end] for name, values in frames.items()}
                index = int(indices[begin])
                if index == open_index and open_parts is not None:
                    part = {name: np.concatenate([open_parts[name], part[name]]) for name in part}
                elif open_parts is not None:
                    yield open_index, open_parts
                open_index, open_parts = index, part
        if open_parts is not None:
            yield open_index, open_parts

    def _read(self, file: pathlib.Path) -> dict[str, np.ndarray]:
        names = [*self._observations, "action", "episode_index", "frame_index",
                 *(name for name in (_REWARD, _DONE) if name in self._features)]
        schema = self._parquet.read_schema(file).names
        for name in names:
            if name not in schema:
                raise DataError(f"column '{name}': {file.name} has none")
        table = self._parquet.read_table(file, columns=names)
        if not table.num_rows:
            return {name: np.empty(0, np.int64) for name in names}
        return {name: self._values(table, name, file) for name in names}

    def _values(self, table: Any, name: str, file: pathlib.Path) -> np.ndarray:
        """[frames, *shape]; a shape of one number is a plain column for what is no vector."""
        array = table[name].combine_chunks()
        while hasattr(array, "flatten") and str(array.type).startswith(
                ("list", "fixed_size_list", "large_list")):
            array = array.flatten()
        values = array.to_numpy(zero_copy_only=False)
        shape = self._feature(name)[1] if name in (*self._observations, "action") else ()
        if values.size != table.num_rows * int(np.prod(shape, dtype=np.int64)):
            raise DataError(f"column '{name}': {values.size} numbers in the {table.num_rows} "
                            f"frames of {file.name}, where each has the shape {list(shape)}")
        return values.reshape(table.num_rows, *shape)

    def _episode(self, index: int, frames: dict[str, np.ndarray]) -> Episode:
        number = len(frames["frame_index"])
        if not np.array_equal(frames["frame_index"], np.arange(number)):
            raise DataError(
                f"column 'frame_index': that of episode {index} is not 0 to {number - 1}")
        done = check_flags(frames[_DONE].astype(bool), _DONE, index) if _DONE in frames else False
        rewards = frames.get(_REWARD)
        if rewards is None:
            rewards = np.zeros(number, np.float32)
            rewards[-1 if done else -2 if number > 1 else 0] = self._choice.final_reward
        observations = {name: frames[name] for name in self._observations}
        if done:
            observations = {name: np.concatenate([values, values[-1:]])
                            for name, values in observations.items()}
        steps = number if done else number - 1
        return Episode(index, observations,
                       {"action": frames["action"][:steps], "reward": rewards[:steps]},
                       terminated=done, truncated=not done)
