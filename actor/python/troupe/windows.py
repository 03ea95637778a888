"""Rows, and windows of rows, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from troupe.layout import FLAGS_FIELD, PRIORITY_FIELD, TERMINATED, TRUNCATED, VERSION_FIELD, Layout
from troupe.transitions import is_final


class PackedRows(Mapping[str, np.ndarray]):
    """A mapping from the columns' names to arrays [*leading, *shape], views of the packed `rows`.
    """

    def __init__(self, layout: Layout, rows: np.ndarray):
        self.layout = layout
        # [*leading] of Layout.dtype.
        self.rows = rows

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.layout:
            raise KeyError(f"no column {name!r}; there are: {', '.join(self.layout.names)}")
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.layout

    @property
    def policy_versions(self) -> np.ndarray:
        """epoch << 40 | counter of the snapshot that acted; 0: none."""
        return self.rows[VERSION_FIELD]

    @property
    def flags(self) -> np.ndarray:
        """Bits of layout.TERMINATED, TRUNCATED and CUT."""
        return self.rows[FLAGS_FIELD]

    @property
    def priorities(self) -> np.ndarray:
        """The actor's own; 0: none."""
        return self.rows[PRIORITY_FIELD]

    @property
    def terminated(self) -> np.ndarray:
        """Which rows hold the last observation of an episode that terminated."""
        return (self.flags & TERMINATED) != 0

    @property
    def truncated(self) -> np.ndarray:
        """The same of truncated ones."""
        return (self.flags & TRUNCATED) != 0

    @property
    def final(self) -> np.ndarray:
        """Which rows hold an observation and no action."""
        return is_final(self.flags)


class Windows(PackedRows):
    """Windows of consecutive rows: arrays [batch, window, *shape].

    A window of n + 1 rows holds n steps; its last row is there for the observation.
    """

    def __init__(self, layout: Layout, rows: np.ndarray, row_ids: np.ndarray, shards: np.ndarray,
                 probabilities: np.ndarray | None = None):
        super().__init__(layout, rows)
        # Of each window's first row; with the number of its shard what priorities are set by.
        self.row_ids = row_ids
        self.shards = shards
        # With which one draw gives the window, over the union of the shards; None: not drawn.
        self.probabilities = probabilities

    def weights(self, beta: float) -> np.ndarray:
        """[batch]: against the odds that the windows were drawn by, the largest being 1.

        w_i = (N P(i))^-beta / max_j w_j (Prioritized Experience Replay, arXiv 1511.05952, 3.4).
        """
        if self.probabilities is None:
            raise ValueError("windows that were not drawn have no probabilities")
        likely = np.maximum(self.probabilities.astype(np.float64), np.finfo(np.float32).tiny)
        return ((likely.min() / likely) ** beta).astype(np.float32)


class Rows(PackedRows):
    """Rows as a shard stores them: arrays [rows, *shape], the rows of a stream in their order."""

    def __init__(self, layout: Layout, rows: np.ndarray, streams: np.ndarray, numbers: np.ndarray,
                 row_ids: np.ndarray, shard: int):
        super().__init__(layout, rows)
        self.streams = streams
        # Of each row in its stream.
        self.numbers = numbers
        self.row_ids = row_ids
        # That they came from: its number in Client.shards.
        self.shard = shard
