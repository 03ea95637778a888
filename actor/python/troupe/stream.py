"""The rows of one environment on their way into a writer's messages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from troupe import transitions
from troupe.errors import LayoutError
from troupe.layout import CUT, FLAGS_FIELD, PRIORITY_FIELD, TERMINATED, TRUNCATED, VERSION_FIELD
from troupe.layout import Column
from troupe.transitions import Observation
from troupe.unacked import SentStream
from troupe.writer_state import Lane, WriterState

_ARRAY = np.ndarray
_USUAL_COLUMNS = ("observation", "action", "reward")
_FLOATS = frozenset((float, np.float32, np.float64))


def _kinds(observation: np.ndarray, action: np.ndarray) -> tuple:
    return observation.dtype, observation.shape, action.dtype, action.shape


class _Fitting:
    """What is known to fit a column."""

    def __init__(self, column: Column):
        self.shape = column.shape
        self.takes_floats = not column.shape and np.dtype(column.dtype).kind == "f"
        self.dtype: np.dtype | None = None


def add_observation(columns: dict[str, Any], observation: Observation | None) -> None:
    """Its column, or its parts' columns."""
    # Nearly always an array, and to ask whether it is a Mapping takes longer than to copy it.
    if observation.__class__ is not _ARRAY and isinstance(observation, Mapping):
        columns.update(transitions.observation_columns(observation))
    else:
        columns["observation"] = observation


class Stream:
    """The rows of one environment, in order.  Made by Writer; for one thread at a time."""

    def __init__(self, state: WriterState, home: Lane, rows: np.ndarray):
        """`rows`: its buffer, of zeros, for good."""
        self._state = state
        self.home = home
        self.lane = home
        self.sent: SentStream
        self._rows = rows
        self.capacity = len(rows)
        self.count = 0
        self._lock = state.lock
        self._stride = state.layout.stride_bytes
        self._message_bytes = state.options.message_bytes
        self._max_unacked = state.options.max_unacked_bytes
        self._columns = {column.name: _Fitting(column) for column in state.layout}
        self._views: dict[str, Any] = {name: rows[name] for name in self._columns}
        # Of step()'s short way, for layouts of these three columns: what fits (_kinds).
        self._usual: tuple | None = None
        self._observations, self._actions, self._rewards = map(self._views.get, _USUAL_COLUMNS)
        self._may_be_usual = (self._views.keys() == set(_USUAL_COLUMNS)
                              and self._columns["reward"].takes_floats)
        self._flags = rows[FLAGS_FIELD]
        self._versions = rows[VERSION_FIELD]
        self._priorities = rows[PRIORITY_FIELD]
        self.begin(home)

    def begin(self, lane: Lane) -> None:
        self.lane = lane
        self.sent = lane.unacked.begin_stream()
        lane.streams.append(self)

    @property
    def id(self) -> int:
        """Of the rows that are written now; another one on another shard."""
        return self.sent.id

    def step(self, observation: Observation, action: npt.ArrayLike | None = None,
             reward: npt.ArrayLike | None = None, *, terminated: bool = False,
             truncated: bool = False, next_observation: Observation | None = None,
             policy_version: int = 0, priority: float = 0.0, timeout: float | None = None,
             **columns: npt.ArrayLike) -> None:
        """Appends what was observed, what was done and what that earned.

        Where the episode ended, `next_observation` is its last one and becomes a row of its own.
        Observations of several columns are mappings: {"camera": ...} is "observation.camera".
        LayoutError: something does not fit, and nothing is appended.  Waits while the buffer is
        full or the shard holds writers back, at most `timeout` seconds: then TimeoutError.
        """
        # Nearly every step is like the one before it: arrays that fit as those did.
        if (observation.__class__ is _ARRAY and action.__class__ is _ARRAY
                and reward.__class__ in _FLOATS and not (columns or terminated or truncated)
                and _kinds(observation, action) == self._usual):
            with self._lock:
                row = self._begin_row(timeout)
                self._observations[row] = observation
                self._actions[row] = action
                self._rewards[row] = reward
                self._end_row(row, policy_version, priority)
            return
        if action is not None:
            columns["action"] = action
        if reward is not None:
            columns["reward"] = reward
        add_observation(columns, observation)
        self._check(columns)
        if self._may_be_usual and columns.keys() == self._views.keys():
            self._usual = _kinds(columns["observation"], columns["action"])
        if not (terminated or truncated):
            with self._lock:
                self._put(columns, 0, policy_version, priority, timeout)
            return
        if next_observation is None:
            raise LayoutError("the episode ended: which next_observation came last?")
        ended = TERMINATED * bool(terminated) | TRUNCATED * bool(truncated)
        final: dict[str, Any] = {}
        add_observation(final, next_observation)
        self._check(final)
        with self._lock:
            self._put(columns, 0, policy_version, priority, timeout)
            self._put(final, ended, policy_version, 0.0, timeout)

    def cut(self, observation: Observation, *, policy_version: int = 0,
            timeout: float | None = None) -> None:
        """Closes an unroll; `observation` comes again in the next row of the same episode."""
        columns: dict[str, Any] = {}
        add_observation(columns, observation)
        self._check(columns)
        with self._lock:
            self._put(columns, CUT, policy_version, 0.0, timeout)

    def add_episode(self, observations: Observation, *, terminated: bool, truncated: bool,
                    policy_version: int = 0, timeout: float | None = None,
                    **columns: npt.ArrayLike) -> None:
        """A whole episode: [T + 1, ...] observations, [T, ...] actions, rewards and so on."""
        self._push(transitions.episode_rows(
            self._state.layout, observations, columns, terminated=terminated, truncated=truncated,
            policy_version=policy_version), timeout)

    def add_transitions(self, observations: Observation, next_observations: Observation, *,
                        terminated: npt.ArrayLike, truncated: npt.ArrayLike,
                        policy_version: int = 0, timeout: float | None = None,
                        **columns: npt.ArrayLike) -> None:
        """n transitions of consecutive episodes, as replay buffers hold them: arrays [n, ...]."""
        self._push(transitions.transition_rows(
            self._state.layout, observations, next_observations, columns, terminated=terminated,
            truncated=truncated, policy_version=policy_version), timeout)

    def append(self, rows: np.ndarray, *, timeout: float | None = None) -> None:
        """Packed rows (Layout.pack), final ones among them where episodes end."""
        if rows.dtype != self._state.layout.dtype or rows.ndim != 1:
            raise LayoutError(f"rows of {rows.dtype} where those of Layout.pack are due")
        self._push(rows.copy(), timeout)  # the caller may change them, and they may be sent again

    def _push(self, rows: np.ndarray, timeout: float | None) -> None:
        state = self._state
        stride = state.layout.stride_bytes
        data = memoryview(rows.view(np.uint8))  # type: ignore[arg-type]
        chunk = max(1, self._message_bytes // stride) * stride
        for begin in range(0, len(data), chunk):
            part = data[begin:begin + chunk]
            with state.lock:
                state.make_room(self, len(part), timeout)
                state.seal(self.lane)
                self.lane.unacked.push([(self.sent, part)])
                state.rows_appended += len(part) // stride
                self.lane.sender.notify()

    def _check(self, columns: dict[str, Any]) -> None:
        """Makes arrays of the values; LayoutError: one does not fit its column."""
        for name, value in columns.items():
            # A number needs no look; an array that is like the last one fits as that did.
            known = self._columns.get(name)
            if value.__class__ in _FLOATS and known is not None and known.takes_floats:
                continue
            array = value
            if value.__class__ is not _ARRAY:
                array = columns[name] = np.asarray(value)
            if known is None or array.dtype is not known.dtype or array.shape != known.shape:
                self._state.layout.check(name, array)
                self._columns[name].dtype = array.dtype

    def _put(self, values: dict[str, Any], flags: int, policy_version: int, priority: float,
             timeout: float | None) -> None:
        row = self._begin_row(timeout)
        views = self._views
        for name, value in values.items():
            views[name][row] = value
        if flags:
            self._flags[row] = flags
        self._end_row(row, policy_version, priority)

    def _begin_row(self, timeout: float | None) -> int:
        """Where the next row is to be written."""
        lane, stride = self.lane, self._stride
        if (not lane.open or lane.held_back or lane is not self.home
                or lane.unacked.bytes + lane.pending_bytes + stride > self._max_unacked):
            self._state.make_room(self, stride, timeout)
        return self.count

    def _end_row(self, row: int, policy_version: int, priority: float) -> None:
        if policy_version:
            self._versions[row] = policy_version
        if priority:
            self._priorities[row] = priority
        state, lane = self._state, self.lane
        self.count = row + 1
        state.rows_appended += 1
        if not lane.pending_bytes:
            lane.seal_at = time.monotonic() + state.options.max_delay_seconds
            lane.sender.notify()
        lane.pending_bytes += self._stride
        if lane.pending_bytes >= self._message_bytes or row + 1 == self.capacity:
            state.seal(lane)
            lane.sender.notify()

    def take_pending(self) -> memoryview | None:
        if self.count == 0:
            return None
        rows = self._rows[:self.count]
        taken = memoryview(rows.tobytes())
        rows.view(np.uint8)[:] = 0
        self.count = 0
        return taken
