"""Every row that the shards of a table store, once, the rows of a stream in their order."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from troupe.codec import codec_of
from troupe.errors import Closed, Refused, TroupeError
from troupe.follow_position import ROWS_IN_BLOCK, FollowPosition
from troupe.layout import Layout
from troupe.proto import replay_pb2
from troupe.shards import Backoff, Shard, Stubs, to_error
from troupe.window_cutter import WindowCutter
from troupe.windows import Rows, Windows

# Replies of a shard that were received and not taken; the shard keeps the rest.
_MAX_REPLIES = 16
_IDENTIFY_SECONDS = 5.0
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class FollowStats:
    """Of a follower."""

    rows: int = 0  # handed out
    rows_missed: int = 0  # at most so many were evicted before they could be received
    reconnects: int = 0
    # Of a shard from its first row, because it is not what it was: rows come again.
    restarts: int = 0


class _Lane:
    """The way to one shard.  Guarded by the follower's lock."""

    def __init__(self, index: int, shard: Shard, position: FollowPosition):
        self.index = index
        self.shard = shard
        self.position = position
        self.identity = 0
        self.replies: collections.deque[replay_pb2.FollowReply] = collections.deque()
        self.call: Any = None
        self.up = False
        self.caught_up = False
        self.missed_in_call = 0
        self.from_the_beginning = False
        self.last_break = "no answer yet"


class Follower:
    """Rows of all shards as they are stored; made by Client.follow.

    A call that breaks is made anew and goes on where it was.  `position` says how far the rows were
    handed out, and given to Client.follow another follower goes on there.  What the caller does
    not take stays with the shards, until their rings turn.  For one thread, but for close.
    """

    def __init__(self, shards: Sequence[Shard], run: str, table: str, layout: Layout,
                 capacity_rows: int, position: Mapping[str, Any] | None = None):
        self.layout = layout
        self._run, self._table = run, table
        self._saved = dict(position or {})
        self._codec = codec_of(layout)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._permanent: Exception | None = None
        self._counts = dict.fromkeys(("rows", "rows_missed", "reconnects", "restarts"), 0)
        self._turn = 0
        self._lanes = [_Lane(i, shard, FollowPosition(capacity_rows, layout.stride_bytes))
                       for i, shard in enumerate(shards)]
        self._threads = [threading.Thread(target=self._run_lane, args=[lane], daemon=True,
                                          name=f"troupe-follow-{lane.shard.name}")
                         for lane in self._lanes]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: float | None = None) -> Rows:
        """The next rows of any shard; TimeoutError: none have come."""
        rows = self._next(timeout, stop_when_caught_up=False)
        assert rows is not None
        return rows

    def __iter__(self) -> Iterator[Rows]:
        while True:
            yield self.next()

    def until_caught_up(self, timeout: float | None = None) -> Iterator[Rows]:
        """Rows until every shard has once had no more; TimeoutError: `timeout` s without any."""
        while True:
            rows = self._next(timeout, stop_when_caught_up=True)
            if rows is None:
                return
            yield rows

    def windows(self, length: int, stride: int = 1, *, start_at_final_rows: bool = False,
                until_caught_up: bool = False, timeout: float | None = None) -> Iterator[Windows]:
        """The windows that the rows make, each once, in the order of their last rows.

        `position` is then a little ahead of the windows: those that it cuts in two do not come
        again.
        """
        cutters = [WindowCutter(length, stride, start_at_final_rows) for _ in self._lanes]
        source = self.until_caught_up(timeout) if until_caught_up else iter(
            lambda: self.next(timeout), None)
        for rows in source:
            windows = cutters[rows.shard].cut(rows)
            if len(windows.rows):
                yield windows

    @property
    def position(self) -> dict[str, Any]:
        """How far rows were handed out, for json.dumps; shards go by their numbers."""
        with self._lock:
            known = {f"{lane.identity:x}": lane.position.to_json()
                     for lane in self._lanes if lane.identity}
            return {**self._saved, **known}

    @property
    def stats(self) -> FollowStats:
        """As of now."""
        with self._lock:
            return FollowStats(**self._counts)

    def close(self) -> None:
        """Ends all calls."""
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                if lane.call is not None:
                    lane.call.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, timeout: float | None, stop_when_caught_up: bool) -> Rows | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while True:
                if self._stopped:
                    raise Closed("the follower is closed")
                lane, reply = self._take()
                if reply is not None:
                    break
                if self._permanent is not None:
                    raise self._permanent
                if stop_when_caught_up and all(lane.caught_up for lane in self._lanes):
                    return None
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("no rows have come; " + "; ".join(
                        f"{lane.shard.name} {'up' if lane.up else lane.last_break}"
                        for lane in self._lanes))
                self._changed.wait(_POLL_SECONDS)
        return self._rows(lane, reply)

    # With the lock held.

    def _take(self) -> tuple[_Lane, replay_pb2.FollowReply | None]:
        """The next reply with rows, of each shard in turn."""
        for _ in self._lanes:
            self._turn = (self._turn + 1) % len(self._lanes)
            lane = self._lanes[self._turn]
            while lane.replies:
                reply = lane.replies.popleft()
                if not lane.replies or len(lane.replies) == _MAX_REPLIES - 1:
                    self._changed.notify_all()  # the lane reads on, or connects again
                try:
                    lane.position.advance(reply)
                except TroupeError as error:
                    self._start_again(lane, error)
                    break
                self._count(lane, reply)
                if reply.runs:
                    return lane, reply
        return self._lanes[0], None

    def _start_again(self, lane: _Lane, error: Exception) -> None:
        """From the table's first row."""
        lane.position.reset()
        lane.replies.clear()
        lane.caught_up = False
        lane.last_break = str(error)
        self._counts["restarts"] += 1
        if lane.call is not None:
            lane.call.cancel()
        self._changed.notify_all()

    def _count(self, lane: _Lane, reply: replay_pb2.FollowReply) -> None:
        missed = reply.rows_missed - min(lane.missed_in_call, reply.rows_missed)
        # What was evicted before there was a follower was not missed.
        if not lane.from_the_beginning:
            self._counts["rows_missed"] += missed
        lane.from_the_beginning = False
        lane.missed_in_call = reply.rows_missed
        if not reply.runs:
            lane.caught_up = True
        for run in reply.runs:
            self._counts["rows"] += len(run.rows) // self.layout.stride_bytes

    def _rows(self, lane: _Lane, reply: replay_pb2.FollowReply) -> Rows:
        parts = [run.rows for run in reply.runs]
        sizes = np.array([len(part) for part in parts]) // self.layout.stride_bytes
        rows = np.frombuffer(b"".join(parts), self.layout.dtype)
        ends = np.cumsum(sizes)
        within = np.arange(len(rows)) - np.repeat(ends - sizes, sizes)
        numbers = np.repeat(np.array([run.first_row for run in reply.runs], np.uint64), sizes)
        numbers += within.astype(np.uint64)
        blocks = np.repeat(np.array([run.block for run in reply.runs], np.uint64), sizes)
        streams = np.repeat(np.array([run.stream for run in reply.runs], np.uint64), sizes)
        row_ids = blocks * np.uint64(ROWS_IN_BLOCK) + numbers % np.uint64(ROWS_IN_BLOCK)
        return Rows(self.layout, rows, streams, numbers, row_ids, lane.index)

    # Connections.

    def _run_lane(self, lane: _Lane) -> None:
        backoff = Backoff()
        while True:
            error = self._session(lane, backoff)
            with self._lock:
                # A new call goes on behind what was handed out: that is to be everything.
                self._changed.wait_for(lambda: self._stopped or not lane.replies)
                if self._stopped:
                    return
                if isinstance(error, Refused):
                    place = error.code == grpc.StatusCode.FAILED_PRECONDITION and not lane.up
                    if place and not lane.position.at_the_beginning:
                        self._start_again(lane, error)
                    elif self._permanent is None:
                        self._permanent = error
                lane.up = False
                lane.last_break = str(error)
                self._counts["reconnects"] += 1
                self._changed.notify_all()
                if self._permanent is not None:
                    return
                self._changed.wait_for(lambda: self._stopped, backoff.next())
            lane.shard.look_again()

    def _session(self, lane: _Lane, backoff: Backoff) -> Exception:
        """One call, until it ends; returns why."""
        what = f"following {lane.shard.name}"
        error: Exception = TroupeError(f"{what}: the shard ended the call")
        try:
            with lane.shard.connect() as stubs:
                self._identify(lane, stubs)
                call = self._start(lane, stubs)
                for reply in call:
                    if self._codec is not None:
                        for run in reply.runs:
                            run.rows = bytes(self._codec.decode(run.rows))
                    with self._lock:
                        lane.up = True
                        backoff.reset()
                        lane.replies.append(reply)
                        self._changed.notify_all()
                        self._changed.wait_for(
                            lambda: self._stopped or len(lane.replies) < _MAX_REPLIES)
        except grpc.RpcError as broken:
            error = to_error(broken, what)
        except (TroupeError, OSError) as broken:
            error = broken
        with self._lock:
            lane.call = None
        return error

    def _identify(self, lane: _Lane, stubs: Stubs) -> None:
        """Another shard than before, or the first: goes on where that one was."""
        identity = stubs.identify(replay_pb2.IdentifyRequest(), metadata=lane.shard.metadata,
                                  timeout=_IDENTIFY_SECONDS).shard
        with self._lock:
            if identity == lane.identity:
                return
            if lane.identity:
                self._saved[f"{lane.identity:x}"] = lane.position.to_json()
                self._counts["restarts"] += 1
            lane.identity = identity
            lane.position.reset()
            saved = self._saved.get(f"{identity:x}")
            if saved is not None:
                lane.position.load_json(saved)

    def _start(self, lane: _Lane, stubs: Stubs) -> Any:
        request = replay_pb2.FollowRequest(run=self._run, table=self._table)
        with self._lock:
            lane.position.describe(request)
            lane.from_the_beginning = lane.position.at_the_beginning
            lane.missed_in_call = 0
            lane.caught_up = False
            lane.up = False
            lane.call = stubs.follow(request, metadata=lane.shard.metadata)
            if self._stopped:
                lane.call.cancel()
            return lane.call
