"""Cuts windows of followed rows, by the shards' rule (replay_server/window_cutter.h)."""

from __future__ import annotations

import dataclasses

import numpy as np

from troupe.layout import FLAGS_FIELD
from troupe.transitions import is_final
from troupe.windows import Rows, Windows

# Ends of streams are remembered for up to so many.
_MAX_STREAMS = 65536


@dataclasses.dataclass(slots=True)
class _Tail:
    """The last rows of a stream, with which later ones make windows."""

    rows: np.ndarray
    row_ids: np.ndarray
    next_number: int


class WindowCutter:
    """Windows of `length` consecutive rows of a stream that start at multiples of `stride`.

    None starts at a final row, unless `start_at_final_rows`.  Of one shard's rows, in their order.
    """

    def __init__(self, length: int, stride: int = 1, start_at_final_rows: bool = False):
        self._length, self._stride = length, stride
        self._at_finals = start_at_final_rows
        self._tails: dict[int, _Tail] = {}

    def cut(self, rows: Rows) -> Windows:
        """The windows that these rows complete."""
        empty = rows.layout.empty(0)
        parts = [np.empty((0, self._length), empty.dtype)]
        ids = [np.empty(0, np.uint64)]
        for begin, end in _runs_of_streams(rows):
            joined, row_ids, first = self._join(rows, begin, end)
            if len(joined) < self._length:
                continue
            starts = np.arange(len(joined) - self._length + 1)
            keep = (starts + first) % self._stride == 0
            if not self._at_finals:
                keep &= ~is_final(joined[FLAGS_FIELD][:len(starts)])
            at = starts[keep]
            parts.append(joined[at[:, None] + np.arange(self._length)])
            ids.append(row_ids[at])
        row_ids = np.concatenate(ids)
        return Windows(rows.layout, np.concatenate(parts), row_ids,
                       np.full(len(row_ids), rows.shard, np.int32))

    def _join(self, rows: Rows, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, int]:
        """With the stream's tail before them, of which what is needed is kept."""
        stream = int(rows.streams[begin])
        number = int(rows.numbers[begin])
        new, row_ids = rows.rows[begin:end], rows.row_ids[begin:end]
        tail = self._tails.pop(stream, None)
        if tail is not None and tail.next_number == number:
            new = np.concatenate([tail.rows, new])
            row_ids = np.concatenate([tail.row_ids, row_ids])
        next_number = number + end - begin
        kept = max(0, len(new) - self._length + 1)
        self._tails[stream] = _Tail(new[kept:].copy(), row_ids[kept:].copy(), next_number)
        if len(self._tails) > _MAX_STREAMS:
            del self._tails[next(iter(self._tails))]  # the one that paused longest
        return new, row_ids, next_number - len(new)


def _runs_of_streams(rows: Rows) -> list[tuple[int, int]]:
    """[begin, end) of rows that follow one another in one stream."""
    if not len(rows.rows):
        return []
    breaks = np.flatnonzero((np.diff(rows.streams) != 0) | (np.diff(rows.numbers) != 1)) + 1
    edges = [0, *breaks.tolist(), len(rows.rows)]
    return list(zip(edges, edges[1:]))
