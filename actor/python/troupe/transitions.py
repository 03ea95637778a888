"""Rows of transitions: an episode of T steps is T + 1 rows, the last of an observation alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from troupe.errors import LayoutError
from troupe.layout import FLAGS_FIELD, FINAL, TERMINATED, TRUNCATED, Layout

Observation = npt.ArrayLike | Mapping[str, npt.ArrayLike]


def observation_columns(value: Observation,
                        prefix: str = "observation") -> dict[str, npt.ArrayLike]:
    """{"observation": value}, or of a mapping {"observation.NAME": part}, nested ones alike."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    columns: dict[str, npt.ArrayLike] = {}
    for name, part in value.items():
        columns.update(observation_columns(part, f"{prefix}.{name}"))
    return columns


def episode_rows(layout: Layout, observations: Observation, columns: Mapping[str, npt.ArrayLike], *,
                 terminated: bool, truncated: bool, policy_version: int = 0) -> np.ndarray:
    """The rows of one episode: [T + 1, ...] observations, [T, ...] of everything else.

    LayoutError: a column does not fit, or the episode neither terminated nor was truncated.
    """
    flags = TERMINATED * bool(terminated) | TRUNCATED * bool(truncated)
    if not flags:
        raise LayoutError("an episode ends terminated, truncated or both")
    parts = {name: np.asarray(part) for name, part in observation_columns(observations).items()}
    steps = {name: np.asarray(part) for name, part in columns.items()}
    length = len(next(iter(parts.values()))) - 1
    rows = layout.pack(parts, policy_version=policy_version)
    for name, part in steps.items():
        layout.check(name, part, (length,))
        rows[name][:-1] = part
    rows[FLAGS_FIELD][-1] = flags
    return rows


def transition_rows(layout: Layout, observations: Observation, next_observations: Observation,
                    columns: Mapping[str, npt.ArrayLike], *, terminated: npt.ArrayLike,
                    truncated: npt.ArrayLike, policy_version: int = 0) -> np.ndarray:
    """The rows of n transitions in order, episodes one after another, as in replay buffers.

    After each transition that ended its episode comes that episode's final row.  The last episode
    may go on in the next call.
    """
    ends = (np.asarray(terminated, bool) * TERMINATED | np.asarray(truncated, bool) * TRUNCATED)
    if ends.ndim != 1:
        raise LayoutError(f"terminated and truncated have shape {list(ends.shape)}, not [n]")
    number = len(ends)
    finals_before = np.concatenate([[0], np.cumsum(ends != 0)])
    at = np.arange(number) + finals_before[:-1]
    finals = at[ends != 0] + 1
    rows = layout.empty(number + int(finals_before[-1]))
    before = observation_columns(observations)
    after = observation_columns(next_observations)
    if before.keys() != after.keys():
        raise LayoutError(f"observations {sorted(before)}, next observations {sorted(after)}")
    for name, part in {**before, **columns}.items():
        values = np.asarray(part)
        layout.check(name, values, (number,))
        rows[name][at] = values
    for name, part in after.items():
        values = np.asarray(part)
        layout.check(name, values, (number,))
        rows[name][finals] = values[ends != 0]
    rows["\0policy_version"] = policy_version
    rows[FLAGS_FIELD][finals] = ends[ends != 0]
    return rows


def is_final(flags: np.ndarray) -> np.ndarray:
    """Which rows hold an observation and no action."""
    return (flags & FINAL) != 0
