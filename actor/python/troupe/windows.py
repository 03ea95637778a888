"""Windows of rows as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from troupe.layout import FLAGS_FIELD, PRIORITY_FIELD, TERMINATED, TRUNCATED, VERSION_FIELD, Layout
from troupe.transitions import is_final


class Windows(Mapping[str, np.ndarray]):
    """A batch of windows: a mapping from the columns' names to arrays [batch, window, *shape].

    The arrays are views of `rows`, the packed rows [batch, window] of Layout.dtype.  A window of n + 1
    rows holds n steps; its last row is only looked at for the observation where it is final or where an
    algorithm bootstraps from it.
    """

    def __init__(self, layout: Layout, rows: np.ndarray, row_ids: np.ndarray,
                 shards: np.ndarray, probabilities: np.ndarray | None = None):
        self.layout = layout
        self.rows = rows
        # Of each window's first row; with the number of its shard what priorities are set by.
        self.row_ids = row_ids
        self.shards = shards
        # With which one draw gives the window, over the union of the shards.
        self.probabilities = probabilities

    def __getitem__(self, name: str) -> np.ndarray:
        return self.rows[self.layout[name].name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.layout

    @property
    def policy_versions(self) -> np.ndarray:
        """[batch, window]: epoch << 40 | counter of the snapshot that acted; 0: none."""
        return self.rows[VERSION_FIELD]

    @property
    def flags(self) -> np.ndarray:
        """[batch, window]: bits of layout.TERMINATED, TRUNCATED and CUT."""
        return self.rows[FLAGS_FIELD]

    @property
    def priorities(self) -> np.ndarray:
        """[batch, window]: the actor's own; 0: none."""
        return self.rows[PRIORITY_FIELD]

    @property
    def terminated(self) -> np.ndarray:
        """[batch, window]: rows that hold the last observation of an episode that terminated."""
        return (self.flags & TERMINATED) != 0

    @property
    def truncated(self) -> np.ndarray:
        """[batch, window]: the same for truncated ones."""
        return (self.flags & TRUNCATED) != 0

    @property
    def final(self) -> np.ndarray:
        """[batch, window]: rows that hold no action."""
        return is_final(self.flags)

    def weights(self, beta: float) -> np.ndarray:
        """[batch]: against the odds that the windows were drawn by, the largest being 1.

        w_i = (N P(i))^-beta / max_j w_j (Prioritized Experience Replay, arXiv 1511.05952, 3.4).
        """
        if self.probabilities is None:
            raise ValueError("windows that were not drawn have no probabilities")
        likely = np.maximum(self.probabilities.astype(np.float64), np.finfo(np.float32).tiny)
        return ((likely.min() / likely) ** beta).astype(np.float32)
