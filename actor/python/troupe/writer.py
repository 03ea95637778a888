"""Rows of one's own loop into a replay table, each exactly once."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from troupe import transitions
from troupe.errors import Closed, LayoutError, Refused, TroupeError
from troupe.layout import CUT, FLAGS_FIELD, PRIORITY_FIELD, TERMINATED, TRUNCATED, VERSION_FIELD
from troupe.layout import Column, Layout
from troupe.proto import replay_pb2
from troupe.shards import Backoff, Shard, to_error
from troupe.transitions import Observation
from troupe.unacked import SentStream, UnackedRows

# What protobuf adds to the rows of one stream in a message.
RUN_OVERHEAD_BYTES = 32
_POLL_SECONDS = 0.1
_FLOATS = frozenset((float, np.float32, np.float64))
# Rows that a stream's buffer holds at least.
_MIN_CAPACITY = 64


@dataclasses.dataclass(frozen=True)
class WriterOptions:
    """How a Writer sends."""

    # A message is sent when so many bytes are ready ...
    message_bytes: int = 128 << 10
    # ... or the oldest row in it is this old.
    max_delay_seconds: float = 0.005
    # Rows made but not acked by one shard; at this bound the caller waits.
    max_unacked_bytes: int = 4 << 20
    # After so long without its shard a stream's new rows go to another one, until it is back.
    move_after_seconds: float = 10.0
    # Rows brought from elsewhere: no rate limiter holds them back or counts them, but they count
    # towards min_size.
    preload: bool = False


@dataclasses.dataclass(frozen=True)
class WriterStats:
    """What became of a writer's rows."""

    rows_appended: int = 0  # accepted by the writer
    rows_acked: int = 0  # held by a shard, as it said
    unacked_bytes: int = 0
    reconnects: int = 0  # connections that broke or failed
    moves: int = 0  # of streams to another shard
    streams_renamed: int = 0  # begun anew because a shard had lost acked rows


class _Session:
    """One call."""

    over = False


class _Lane:
    """The way to one shard.  Guarded by the writer's lock."""

    def __init__(self, shard: Shard, stride_bytes: int, lock: threading.Lock):
        self.shard = shard
        self.unacked = UnackedRows(stride_bytes)
        self.sender = threading.Condition(lock)  # something to send, or the session is over
        self.call: Any = None
        self.open = False  # the shard has answered; rows may be sent
        self.held_back = False
        self.draining = False
        self.drained = False
        self.window_bytes = 0
        self.away_since = time.monotonic()
        self.last_break = "no answer yet"
        self.streams: list[Stream] = []
        self.pending_bytes = 0  # in buffers of the streams
        self.seal_at = 0.0

    @property
    def bytes(self) -> int:
        return self.unacked.bytes + self.pending_bytes


class _Fitting:
    """What is known to fit a column."""

    def __init__(self, column: Column):
        self.shape = column.shape
        self.takes_floats = not column.shape and np.dtype(column.dtype).kind == "f"
        self.dtype: np.dtype | None = None


def _add_observation(columns: dict[str, Any], observation: Observation | None) -> None:
    # Nearly always an array, and to ask whether it is a Mapping takes longer than to copy it.
    if observation.__class__ is not np.ndarray and isinstance(observation, Mapping):
        columns.update(transitions.observation_columns(observation))
    else:
        columns["observation"] = observation


class Stream:
    """The rows of one environment, in order.  Made by Writer; for one thread at a time."""

    def __init__(self, writer: Writer, home: _Lane, rows: np.ndarray):
        """`rows`: its buffer, of zeros, for good."""
        self._writer = writer
        self._home = home
        self._lane = home
        self._sent: SentStream
        self._rows = rows
        self._capacity = len(rows)
        self._count = 0
        self._lock = writer._lock
        self._stride = writer.layout.stride_bytes
        self._message_bytes = writer.options.message_bytes
        self._max_unacked = writer.options.max_unacked_bytes
        self._columns = {column.name: _Fitting(column) for column in writer.layout}
        self._views = {name: rows[name] for name in self._columns}
        self._flags = rows[FLAGS_FIELD]
        self._versions = rows[VERSION_FIELD]
        self._priorities = rows[PRIORITY_FIELD]
        self._begin(home)

    def _begin(self, lane: _Lane) -> None:
        self._lane = lane
        self._sent = lane.unacked.begin_stream()
        lane.streams.append(self)

    @property
    def id(self) -> int:
        """Of the rows that are written now; another one on another shard."""
        return self._sent.id

    def step(self, observation: Observation, action: npt.ArrayLike = None,
             reward: npt.ArrayLike = None, *, terminated: bool = False, truncated: bool = False,
             next_observation: Observation | None = None, policy_version: int = 0,
             priority: float = 0.0, timeout: float | None = None, **columns: npt.ArrayLike) -> None:
        """Appends what was observed, what was done and what that earned.

        Where the episode ended, `next_observation` is its last one and becomes a row of its own.
        Observations of several columns are mappings: {"camera": ...} is "observation.camera".
        LayoutError: something does not fit, and nothing is appended.  Waits while the buffer is full or
        the shard holds writers back, at most `timeout` seconds: then TimeoutError.
        """
        ended = TERMINATED * bool(terminated) | TRUNCATED * bool(truncated)
        if ended and next_observation is None:
            raise LayoutError("the episode ended: which next_observation came last?")
        if action is not None:
            columns["action"] = action
        if reward is not None:
            columns["reward"] = reward
        _add_observation(columns, observation)
        self._checked(columns)
        if not ended:
            with self._lock:
                self._put(columns, 0, policy_version, priority, timeout)
            return
        final: dict[str, Any] = {}
        _add_observation(final, next_observation)
        self._checked(final)
        with self._lock:
            self._put(columns, 0, policy_version, priority, timeout)
            self._put(final, ended, policy_version, 0.0, timeout)

    def cut(self, observation: Observation, *, policy_version: int = 0,
            timeout: float | None = None) -> None:
        """Closes an unroll: `observation` comes again in the next row, where the episode goes on."""
        columns: dict[str, Any] = {}
        _add_observation(columns, observation)
        self._checked(columns)
        with self._lock:
            self._put(columns, CUT, policy_version, 0.0, timeout)

    def add_episode(self, observations: Observation, *, terminated: bool, truncated: bool,
                    policy_version: int = 0, timeout: float | None = None,
                    **columns: npt.ArrayLike) -> None:
        """A whole episode: [T + 1, ...] observations, [T, ...] actions, rewards and so on."""
        self._push(transitions.episode_rows(
            self._writer.layout, observations, columns, terminated=terminated, truncated=truncated,
            policy_version=policy_version), timeout)

    def add_transitions(self, observations: Observation, next_observations: Observation, *,
                        terminated: npt.ArrayLike, truncated: npt.ArrayLike,
                        policy_version: int = 0, timeout: float | None = None,
                        **columns: npt.ArrayLike) -> None:
        """n transitions of consecutive episodes, as replay buffers hold them: arrays [n, ...]."""
        self._push(transitions.transition_rows(
            self._writer.layout, observations, next_observations, columns, terminated=terminated,
            truncated=truncated, policy_version=policy_version), timeout)

    def append(self, rows: np.ndarray, *, timeout: float | None = None) -> None:
        """Packed rows (Layout.pack), final ones among them where episodes end."""
        if rows.dtype != self._writer.layout.dtype or rows.ndim != 1:
            raise LayoutError(f"rows of {rows.dtype} where those of Layout.pack are due")
        self._push(rows.copy(), timeout)  # the caller may change them, and they may be sent again

    def _push(self, rows: np.ndarray, timeout: float | None) -> None:
        writer = self._writer
        stride = writer.layout.stride_bytes
        data = memoryview(rows.view(np.uint8))
        chunk = max(1, self._message_bytes // stride) * stride
        for begin in range(0, len(data), chunk):
            part = data[begin:begin + chunk]
            with writer._lock:
                writer._make_room(self, len(part), timeout)
                writer._seal(self._lane)
                self._lane.unacked.push([(self._sent, part)])
                writer._rows_appended += len(part) // stride
                self._lane.sender.notify()

    def _checked(self, columns: dict[str, Any]) -> None:
        """Makes arrays of the values; LayoutError: one does not fit its column."""
        for name, value in columns.items():
            # A number needs no look; an array that is like the last one fits as that did.
            known = self._columns.get(name)
            if value.__class__ in _FLOATS and known is not None and known.takes_floats:
                continue
            array = columns[name] = np.asarray(value)
            if known is None or array.dtype is not known.dtype or array.shape != known.shape:
                self._writer.layout.check(name, array)
                self._columns[name].dtype = array.dtype

    def _put(self, values: dict[str, Any], flags: int, policy_version: int, priority: float,
             timeout: float | None) -> None:
        writer, lane, stride = self._writer, self._lane, self._stride
        if (not lane.open or lane.held_back or lane is not self._home
                or lane.unacked.bytes + lane.pending_bytes + stride > self._max_unacked):
            writer._make_room(self, stride, timeout)
            lane = self._lane
        row = self._count
        views = self._views
        for name, value in values.items():
            views[name][row] = value
        if flags:
            self._flags[row] = flags
        if policy_version:
            self._versions[row] = policy_version
        if priority:
            self._priorities[row] = priority
        self._count = row + 1
        writer._rows_appended += 1
        if not lane.pending_bytes:
            lane.seal_at = time.monotonic() + writer.options.max_delay_seconds
            lane.sender.notify()
        lane.pending_bytes += stride
        if lane.pending_bytes >= self._message_bytes or row + 1 == self._capacity:
            writer._seal(lane)
            lane.sender.notify()

    def _take_pending(self) -> memoryview | None:
        if self._count == 0:
            return None
        rows = self._rows[:self._count]
        taken = memoryview(rows.tobytes())
        rows.view(np.uint8)[:] = 0
        self._count = 0
        return taken


class Writer:
    """Brings the rows of one or several environments to the shards of a table, each exactly once.

    Rows are kept until a shard acks them.  When a connection breaks, the writer connects again, asks
    what the shard holds and sends the rest.  Streams are spread over the shards; when a shard stays
    away or is drained, new rows of its streams go to another one in new streams, and what it has not
    acked is kept for it.  Nothing is ever given up: the caller waits instead.

    Made by Client.writer.  Thread-safe, but for one stream, which one thread uses at a time.  Use as a
    context manager: leaving it waits until all is acked.
    """

    def __init__(self, shards: Sequence[Shard], run: str, table: str, layout: Layout,
                 num_streams: int = 1, options: WriterOptions | None = None, first_shard: int = 0):
        self.options = options or WriterOptions()
        self.layout = layout
        self._run, self._table = run, table
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._permanent: Exception | None = None
        self._rows_appended = self._reconnects = self._moves = 0
        self._lanes = [_Lane(shard, layout.stride_bytes, self._lock) for shard in shards]
        in_message = self.options.message_bytes // layout.stride_bytes
        capacity = max(min(_MIN_CAPACITY, in_message), in_message // num_streams, 2)
        self._rows = layout.empty(num_streams * capacity).reshape(num_streams, capacity)
        self._streams = [Stream(self, self._lanes[(first_shard + i) % len(self._lanes)], rows)
                         for i, rows in enumerate(self._rows)]
        self._threads = [threading.Thread(target=self._run_lane, args=[lane], daemon=True,
                                          name=f"troupe-append-{lane.shard.name}")
                         for lane in self._lanes]
        for thread in self._threads:
            thread.start()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """One for each environment."""
        return tuple(self._streams)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Stream.step of the first stream."""
        self._streams[0].step(*args, **kwargs)

    def step_all(self, observations: Observation, action: npt.ArrayLike = None,
                 reward: npt.ArrayLike = None, *, terminated: npt.ArrayLike = False,
                 truncated: npt.ArrayLike = False, next_observations: Observation | None = None,
                 mask: npt.ArrayLike = True, policy_version: int = 0,
                 timeout: float | None = None, **columns: npt.ArrayLike) -> None:
        """Stream.step of all streams at once: arrays [streams, ...], as vector environments give them.

        `next_observations` count where an episode ended.  `mask`: which environments took a step; with
        Gymnasium's next-step autoreset those whose episode has not ended the step before.
        """
        number = len(self._streams)
        _add_observation(columns, observations)
        for name, value in (("action", action), ("reward", reward)):
            if value is not None:
                columns[name] = value
        values = self._checked_all(columns)
        live = np.broadcast_to(np.asarray(mask, bool), number)
        ends = np.where(live, np.asarray(terminated, bool) * TERMINATED
                        | np.asarray(truncated, bool) * TRUNCATED, 0)
        finals: dict[str, np.ndarray] = {}
        if ends.any():
            if next_observations is None:
                raise LayoutError("episodes ended: which next_observations came last?")
            last: dict[str, Any] = {}
            _add_observation(last, next_observations)
            finals = self._checked_all(last)
        steps, ended = np.flatnonzero(live), np.flatnonzero(ends)
        with self._lock:
            for stream in steps.tolist():
                self._make_room_for_two(self._streams[stream], timeout)
            self._put_all(steps, values, None, policy_version)
            self._put_all(ended, finals, ends, policy_version)
            for lane in self._lanes:
                if lane.pending_bytes >= self.options.message_bytes:
                    self._seal(lane)
                    lane.sender.notify()

    def _checked_all(self, columns: dict[str, Any]) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(value) for name, value in columns.items()}
        for name, array in arrays.items():
            self.layout.check(name, array, (len(self._streams),))
        return arrays

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """Stream.add_episode of the first stream."""
        self._streams[0].add_episode(*args, **kwargs)

    def append(self, rows: np.ndarray, *, timeout: float | None = None) -> None:
        """Stream.append of the first stream."""
        self._streams[0].append(rows, timeout=timeout)

    def wait_connected(self, timeout: float = 30.0) -> None:
        """Until the shards of all streams have accepted the layout; TimeoutError says who has not."""
        with self._lock:
            self._wait(lambda: all(stream._lane.open for stream in self._streams), timeout,
                       "not every shard has accepted rows")

    def flush(self, timeout: float | None = None) -> None:
        """Sends what is there and waits until all of it is acked; TimeoutError says what is not."""
        with self._lock:
            for lane in self._lanes:
                self._seal(lane)
                lane.sender.notify()
            self._wait(lambda: not any(lane.unacked for lane in self._lanes), timeout,
                       "rows are not flushed")

    def close(self, timeout: float | None = 30.0) -> None:
        """Flushes and ends; TimeoutError: some rows were not acked, and are lost."""
        try:
            if not self._stopped and self._permanent is None:
                self.flush(timeout)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends at once; what is not acked by then is lost."""
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                if lane.call is not None:
                    lane.call.cancel()
                lane.sender.notify_all()
            self._changed.notify_all()
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
        with self._lock:
            return WriterStats(
                rows_appended=self._rows_appended,
                rows_acked=sum(lane.unacked.rows_acked for lane in self._lanes),
                unacked_bytes=sum(lane.bytes for lane in self._lanes),
                reconnects=self._reconnects, moves=self._moves,
                streams_renamed=sum(lane.unacked.streams_renamed for lane in self._lanes))

    # Rows.  All of these are called with the lock held.

    def _wait(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not ready():
            if self._permanent is not None:
                raise self._permanent
            if self._stopped:
                raise Closed("the writer is closed")
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{what}; {self._why()}")
            self._changed.wait(_POLL_SECONDS)

    def _why(self) -> str:
        words = []
        for lane in self._lanes:
            state = "connected" if lane.open else lane.last_break
            for name in ("held_back", "draining"):
                state += f", {name}" * getattr(lane, name)
            words.append(f"{lane.shard.name} ({state}) has not acked "
                         f"{lane.bytes // self.layout.stride_bytes} rows")
        return "; ".join(words)

    def _make_room(self, stream: Stream, num_bytes: int, timeout: float | None) -> None:
        def ready() -> bool:
            self._place(stream)
            lane = stream._lane
            fits = lane.bytes == 0 or lane.bytes + num_bytes <= self.options.max_unacked_bytes
            return fits and not lane.held_back

        if self._permanent is not None:
            raise self._permanent
        if self._stopped:
            raise Closed("the writer is closed")
        self._wait(ready, timeout, "no room for more rows")

    def _make_room_for_two(self, stream: Stream, timeout: float | None) -> None:
        """Of a step and a final row, in the stream's buffer as well."""
        lane, size = stream._lane, 2 * self.layout.stride_bytes
        if (not lane.open or lane.held_back or lane is not stream._home
                or lane.bytes + size > self.options.max_unacked_bytes):
            self._make_room(stream, size, timeout)
        if stream._count + 2 > stream._capacity:
            self._seal(stream._lane)
            stream._lane.sender.notify()

    def _put_all(self, at: np.ndarray, values: dict[str, np.ndarray], flags: np.ndarray | None,
                 policy_version: int) -> None:
        """A row of each of the streams `at`, which have room."""
        streams = [self._streams[i] for i in at.tolist()]
        rows = np.array([stream._count for stream in streams], np.intp)
        for name, array in values.items():
            self._rows[name][at, rows] = array[at]
        if flags is not None:
            self._rows[FLAGS_FIELD][at, rows] = flags[at]
        if policy_version:
            self._rows[VERSION_FIELD][at, rows] = policy_version
        for stream in streams:
            stream._count += 1
            lane = stream._lane
            if not lane.pending_bytes:
                lane.seal_at = time.monotonic() + self.options.max_delay_seconds
                lane.sender.notify()
            lane.pending_bytes += self.layout.stride_bytes
        self._rows_appended += len(streams)

    def _is_away(self, lane: _Lane) -> bool:
        if lane.open:
            return lane.draining
        return time.monotonic() >= lane.away_since + self.options.move_after_seconds

    def _place(self, stream: Stream) -> None:
        """Moves the stream home, or away from a shard that takes nothing."""
        def takes(lane: _Lane) -> bool:
            return lane.open and not lane.draining

        lane = stream._lane
        if lane is not stream._home and takes(stream._home):
            self._move(stream, stream._home)
        elif self._is_away(lane):
            open_lanes = [other for other in self._lanes if takes(other)]
            if open_lanes:
                self._move(stream, min(open_lanes, key=lambda other: len(other.streams)))
            else:
                self._changed.notify_all()  # others are wanted now

    def _move(self, stream: Stream, lane: _Lane) -> None:
        old = stream._lane
        self._seal(old)
        stream._sent.open = False
        old.streams.remove(stream)
        old.sender.notify()
        stream._begin(lane)
        self._moves += 1

    def _seal(self, lane: _Lane) -> None:
        """Makes a message of the rows in the streams' buffers."""
        if not lane.pending_bytes:
            return
        runs = []
        for stream in lane.streams:
            rows = stream._take_pending()
            if rows is not None:
                runs.append((stream._sent, rows))
        lane.pending_bytes = 0
        lane.unacked.push(runs)

    # Connections.

    def _wanted(self, lane: _Lane) -> bool:
        return (bool(lane.streams) or bool(lane.unacked)
                or any(self._is_away(other) for other in self._lanes if other is not lane))

    def _run_lane(self, lane: _Lane) -> None:
        backoff = Backoff()
        while True:
            with self._lock:
                while not self._stopped and not self._wanted(lane):
                    self._changed.wait(5 * _POLL_SECONDS)
                if self._stopped or self._permanent is not None:
                    return
            error = self._session(lane, backoff)
            with self._lock:
                if self._stopped:
                    return
                if isinstance(error, Refused) and self._permanent is None:
                    self._permanent = error
                lane.last_break = str(error)
                self._reconnects += 1
                self._changed.notify_all()
                if self._permanent is None:
                    self._changed.wait_for(lambda: self._stopped, backoff.next())
            lane.shard.look_again()

    def _session(self, lane: _Lane, backoff: Backoff) -> Exception:
        """One call, until it ends; returns why."""
        session = _Session()
        what = f"appending to {lane.shard.name}"
        error: Exception = TroupeError(f"{what}: the shard ended the call")
        try:
            with lane.shard.connect() as stubs:
                call = stubs.append(self._requests(lane, session), metadata=lane.shard.metadata)
                with self._lock:
                    lane.call = call
                    if self._stopped:
                        call.cancel()
                for reply in call:
                    with self._lock:
                        self._on_reply(lane, reply, backoff)
        except grpc.RpcError as broken:
            error = to_error(broken, what)
        except (TroupeError, OSError) as broken:
            error = broken
        with self._lock:
            session.over = True
            if lane.open:
                lane.away_since = time.monotonic()
            lane.open = lane.held_back = lane.draining = lane.drained = False
            lane.call = None
            lane.sender.notify_all()
        return error

    def _open_request(self, lane: _Lane) -> replay_pb2.AppendRequest:
        # A message is sealed when it is full, and the last rows of each stream may make it fuller.
        biggest = (max(self.options.message_bytes, self.layout.stride_bytes)
                   + 2 * self.layout.stride_bytes * len(self._streams))
        return replay_pb2.AppendRequest(open=replay_pb2.AppendOpen(
            run=self._run, table=self._table, layout=self.layout.to_proto(),
            streams=[stream.id for stream in lane.unacked.live_streams],
            preload=self.options.preload,
            max_message_bytes=biggest + RUN_OVERHEAD_BYTES * (len(self._streams) + 1)))

    def _requests(self, lane: _Lane, session: _Session) -> Iterator[replay_pb2.AppendRequest]:
        """What the call sends; runs on a thread of gRPC's."""
        with self._lock:
            first = self._open_request(lane)
        yield first
        while True:
            with self._lock:
                request = None
                while request is None:
                    if session.over or self._stopped:
                        return
                    request = self._next_request(lane)
                    if request is None:
                        lane.sender.wait(self._until_seal(lane))
            yield request

    def _until_seal(self, lane: _Lane) -> float | None:
        if not lane.open or not lane.pending_bytes:
            return None
        return max(0.0, lane.seal_at - time.monotonic())

    def _next_request(self, lane: _Lane) -> replay_pb2.AppendRequest | None:
        if not lane.open:
            return None
        if lane.pending_bytes and time.monotonic() >= lane.seal_at:
            self._seal(lane)
        request = lane.unacked.next_to_send(lane.window_bytes)
        if request is not None or not lane.draining or lane.drained or lane.unacked:
            return request
        lane.drained = True
        return replay_pb2.AppendRequest(drained=True)

    def _on_reply(self, lane: _Lane, reply: replay_pb2.AppendReply, backoff: Backoff) -> None:
        if lane.open:
            lane.unacked.ack(reply)
            # Rows made before the older ones are in would only stand in a queue and grow old.
            if reply.held_back or not lane.unacked:
                lane.held_back = reply.held_back
        else:
            self._seal(lane)
            lane.unacked.resume(reply)
            lane.open, lane.held_back = True, reply.held_back
            lane.window_bytes = reply.window_bytes
            backoff.reset()
        if lane.draining != reply.draining:
            lane.draining, lane.drained = reply.draining, False
            self._seal(lane)
        lane.sender.notify()
        self._changed.notify_all()
