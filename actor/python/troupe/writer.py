"""Rows of one's own loop into a replay table, each exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from troupe.append_calls import AppendCalls
from troupe.errors import LayoutError
from troupe.layout import FLAGS_FIELD, TERMINATED, TRUNCATED, VERSION_FIELD, Layout
from troupe.shards import Shard
from troupe.stream import Stream, add_observation
from troupe.transitions import Observation
from troupe.writer_state import WriterOptions, WriterState, WriterStats

# Rows that a stream's buffer holds at least.
_MIN_CAPACITY = 64


class Writer:
    """Brings the rows of one or several environments to the shards of a table, each exactly once.

    Rows are kept until a shard acks them.  When a connection breaks, the writer connects again,
    asks what the shard holds and sends the rest.  Streams are spread over the shards; when a shard
    stays away or is drained, new rows of its streams go to another one in new streams, and what it
    has not acked is kept for it.  Nothing is ever given up: the caller waits instead.

    Made by Client.writer.  Thread-safe, but for one stream, which one thread uses at a time.  Use
    as a context manager: leaving it waits until all is acked.
    """

    def __init__(self, shards: Sequence[Shard], run: str, table: str, layout: Layout,
                 num_streams: int = 1, options: WriterOptions | None = None, first_shard: int = 0):
        self.options = options or WriterOptions()
        self.layout = layout
        state = self._state = WriterState(shards, run, table, layout, self.options, num_streams)
        in_message = self.options.message_bytes // layout.stride_bytes
        capacity = max(min(_MIN_CAPACITY, in_message), in_message // num_streams, 2)
        buffers = layout.empty(num_streams * capacity).reshape(num_streams, capacity)
        self._views = {name: buffers[name] for name in layout.dtype.names or ()}
        self._all = np.arange(num_streams)
        self._fits: dict[str, tuple] = {}  # shapes and types of arrays that were checked
        self._streams = [Stream(state, state.lanes[(first_shard + i) % len(state.lanes)], rows)
                         for i, rows in enumerate(buffers)]
        calls = AppendCalls(state)
        self._threads = [threading.Thread(target=calls.run, args=[lane], daemon=True,
                                          name=f"troupe-append-{lane.shard.name}")
                         for lane in state.lanes]
        for thread in self._threads:
            thread.start()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """One for each environment."""
        return tuple(self._streams)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Stream.step of the first stream."""
        self._streams[0].step(*args, **kwargs)

    def step_all(self, observations: Observation, action: npt.ArrayLike | None = None,
                 reward: npt.ArrayLike | None = None, *, terminated: npt.ArrayLike = False,
                 truncated: npt.ArrayLike = False, next_observations: Observation | None = None,
                 mask: npt.ArrayLike = True, policy_version: int = 0,
                 timeout: float | None = None, **columns: npt.ArrayLike) -> None:
        """Stream.step of all streams at once: arrays [streams, ...], as of a vector environment.

        `next_observations` count where an episode ended.  `mask`: which environments took a step;
        with Gymnasium's next-step autoreset those whose episode has not ended the step before.
        """
        add_observation(columns, observations)
        for name, value in (("action", action), ("reward", reward)):
            if value is not None:
                columns[name] = value
        values = self._check_all(columns)
        stepped = self._all if mask is True else np.flatnonzero(
            np.broadcast_to(np.asarray(mask, bool), self._all.shape))
        finals: dict[str, np.ndarray] = {}
        ends = self._all
        if np.asarray(terminated).any() or np.asarray(truncated).any():
            if next_observations is None:
                raise LayoutError("episodes ended: which next_observations came last?")
            ends = np.zeros(self._all.shape, np.uint32)
            flags = (np.asarray(terminated, bool) * TERMINATED
                     | np.asarray(truncated, bool) * TRUNCATED)
            ends[stepped] = np.broadcast_to(flags, ends.shape)[stepped]
            last: dict[str, Any] = {}
            add_observation(last, next_observations)
            finals = self._check_all(last)
        with self._state.lock:
            self._make_room_for_all(timeout)
            self._put_all(stepped, values, None, policy_version)
            if finals:
                self._put_all(np.flatnonzero(ends), finals, ends, policy_version)
            for lane in self._state.lanes:
                if lane.pending_bytes >= self.options.message_bytes:
                    self._state.seal(lane)
                    lane.sender.notify()

    def _check_all(self, columns: dict[str, Any]) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(value) for name, value in columns.items()}
        for name, array in arrays.items():
            # An array that is like the last one fits as that did.
            if self._fits.get(name) != (array.shape, array.dtype):
                self.layout.check(name, array, (len(self._streams),))
                self._fits[name] = (array.shape, array.dtype)
        return arrays

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """Stream.add_episode of the first stream."""
        self._streams[0].add_episode(*args, **kwargs)

    def append(self, rows: np.ndarray, *, timeout: float | None = None) -> None:
        """Stream.append of the first stream."""
        self._streams[0].append(rows, timeout=timeout)

    def wait_connected(self, timeout: float = 30.0) -> None:
        """Until the shards of all streams have accepted the layout; TimeoutError says who has not.
        """
        with self._state.lock:
            self._state.wait(lambda: all(stream.lane.open for stream in self._streams), timeout,
                       "not every shard has accepted rows")

    def flush(self, timeout: float | None = None) -> None:
        """Sends what is there and waits until all of it is acked; TimeoutError says what is not."""
        with self._state.lock:
            for lane in self._state.lanes:
                self._state.seal(lane)
                lane.sender.notify()
            self._state.wait(lambda: not any(lane.unacked for lane in self._state.lanes), timeout,
                       "rows are not flushed")

    def close(self, timeout: float | None = 30.0) -> None:
        """Flushes and ends; TimeoutError: some rows were not acked, and are lost."""
        try:
            if not self._state.stopped and self._state.permanent is None:
                self.flush(timeout)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends at once; what is not acked by then is lost."""
        with self._state.lock:
            self._state.stopped = True
            for lane in self._state.lanes:
                if lane.call is not None:
                    lane.call.cancel()
                lane.sender.notify_all()
            self._state.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.stop()

    @property
    def stats(self) -> WriterStats:
        """As of now."""
        with self._state.lock:
            return self._state.stats()

    # With the lock held.

    def _make_room_for_all(self, timeout: float | None) -> None:
        """For a step and a final row of each stream."""
        state, size = self._state, 2 * self.layout.stride_bytes
        for lane in state.lanes:
            # What its streams say once holds for all of them, unless some are not at home.
            if lane.streams and (not lane.open or lane.held_back or state.moves
                                 or lane.bytes + size * len(lane.streams)
                                 > self.options.max_unacked_bytes):
                for stream in self._streams:
                    state.make_room(stream, size, timeout)
                break
        if max(stream.count for stream in self._streams) + 2 > self._streams[0].capacity:
            for lane in state.lanes:
                state.seal(lane)
                lane.sender.notify()

    def _put_all(self, at: np.ndarray, values: dict[str, np.ndarray], flags: np.ndarray | None,
                 policy_version: int) -> None:
        """A row of each of the streams `at`."""
        all_streams = self._streams
        streams = all_streams if len(at) == len(all_streams) else [all_streams[i] for i in at]
        rows = np.array([stream.count for stream in streams], np.intp)
        for name, array in values.items():
            self._views[name][at, rows] = array if streams is all_streams else array[at]
        if flags is not None:
            self._views[FLAGS_FIELD][at, rows] = flags[at]
        if policy_version:
            self._views[VERSION_FIELD][at, rows] = policy_version
        stride = self.layout.stride_bytes
        for stream in streams:
            stream.count += 1
            lane = stream.lane
            if not lane.pending_bytes:
                lane.seal_at = time.monotonic() + self.options.max_delay_seconds
                lane.sender.notify()
            lane.pending_bytes += stride
        self._state.rows_appended += len(streams)
