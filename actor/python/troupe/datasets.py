"""Data sets of others as episodes of rows: what Minari's and LeRobot's readers share."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Protocol

import numpy as np

from troupe.errors import TroupeError
from troupe.layout import Layout


class DataError(TroupeError):
    """A data set that cannot be brought in; names the column, the episode and the numbers."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """Arrays by column: observations [T + 1, ...], everything else [T, ...]."""

    index: int
    observations: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    terminated: bool
    truncated: bool

    @property
    def num_steps(self) -> int:
        return len(next(iter(self.observations.values()))) - 1


class Dataset(Protocol):
    """A data set that is read from its files, as often as it takes."""

    # Of the rows that it makes, with the names that the data set has them under.
    layout: Layout
    # What the data set says of itself.
    num_episodes: int
    num_steps: int
    # Columns that are not brought in.
    left_out: tuple[str, ...]
    # Things to know about its rows, for people.
    remarks: tuple[str, ...]

    def episodes(self) -> Iterator[Episode]:
        """All of them, in order."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a user says of the columns."""

    # Names that are not brought in.
    skip: tuple[str, ...] = ()
    # Columns that a layout needs and the data set does not say.
    action_low: float | None = None
    action_high: float | None = None
    # Where the data set has no rewards: of the last step of an episode; the others get 0.
    final_reward: float | None = None


def library(name: str) -> ModuleType:
    """An optional package; DataError says how it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            f"{name} is not installed; pip install './actor/python[data]' does") from None


def check_flags(flags: np.ndarray, what: str, index: int) -> bool:
    """Of steps [T]: that of the last one; DataError: one before it is set."""
    early = np.flatnonzero(flags[:-1])
    if len(early):
        raise DataError(f"column '{what}': true at step {early[0]} of episode {index}, which has "
                        f"{len(flags)} steps")
    return bool(flags[-1]) if len(flags) else False
