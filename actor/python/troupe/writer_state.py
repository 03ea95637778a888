"""What a writer, its streams and its calls share."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from troupe.codec import RowCodec, codec_of
from troupe.errors import Closed
from troupe.layout import Layout
from troupe.shards import Shard
from troupe.unacked import UnackedRows

if TYPE_CHECKING:
    from troupe.stream import Stream

_POLL_SECONDS = 0.1


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


class Lane:
    """The way to one shard.  Guarded by the state's lock."""

    def __init__(self, shard: Shard, layout: Layout, codec: RowCodec | None, lock: threading.Lock):
        self.shard = shard
        self.unacked = UnackedRows(layout.stride_bytes, codec)
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


class WriterState:
    """One lock guards all of it; every method but the constructor is called with the lock held."""

    def __init__(self, shards: Sequence[Shard], run: str, table: str, layout: Layout,
                 options: WriterOptions, num_streams: int):
        self.run, self.table, self.layout, self.options = run, table, layout, options
        self.num_streams = num_streams
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.stopped = False
        self.permanent: Exception | None = None
        self.rows_appended = self.reconnects = self.moves = 0
        codec = codec_of(layout)
        self.max_row_bytes = codec.max_row_bytes if codec else layout.stride_bytes
        self.lanes = [Lane(shard, layout, codec, self.lock) for shard in shards]

    def stats(self) -> WriterStats:
        """As of now."""
        return WriterStats(
            rows_appended=self.rows_appended,
            rows_acked=sum(lane.unacked.rows_acked for lane in self.lanes),
            unacked_bytes=sum(lane.bytes for lane in self.lanes),
            reconnects=self.reconnects, moves=self.moves,
            streams_renamed=sum(lane.unacked.streams_renamed for lane in self.lanes))

    def wait(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None:
        """TimeoutError with `what` and why, a shard's permanent error, or Closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not ready():
            if self.permanent is not None:
                raise self.permanent
            if self.stopped:
                raise Closed("the writer is closed")
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{what}; {self.why()}")
            self.changed.wait(_POLL_SECONDS)

    def why(self) -> str:
        words = []
        for lane in self.lanes:
            state = "connected" if lane.open else lane.last_break
            for name in ("held_back", "draining"):
                state += f", {name}" * getattr(lane, name)
            words.append(f"{lane.shard.name} ({state}) has not acked "
                         f"{lane.bytes // self.layout.stride_bytes} rows")
        return "; ".join(words)

    def make_room(self, stream: Stream, num_bytes: int, timeout: float | None) -> None:
        """Waits until the stream's shard takes so many more."""
        def ready() -> bool:
            self.place(stream)
            lane = stream.lane
            fits = lane.bytes == 0 or lane.bytes + num_bytes <= self.options.max_unacked_bytes
            return fits and not lane.held_back

        if self.permanent is not None:
            raise self.permanent
        if self.stopped:
            raise Closed("the writer is closed")
        self.wait(ready, timeout, "no room for more rows")

    def is_away(self, lane: Lane) -> bool:
        """Are rows to go to another shard, because this one is drained or has been away for long?
        """
        if lane.open:
            return lane.draining
        return time.monotonic() >= lane.away_since + self.options.move_after_seconds

    def place(self, stream: Stream) -> None:
        """Moves the stream home, or away from a shard that takes nothing."""
        def takes(lane: Lane) -> bool:
            return lane.open and not lane.draining

        lane = stream.lane
        if lane is not stream.home and takes(stream.home):
            self.move(stream, stream.home)
        elif self.is_away(lane):
            open_lanes = [other for other in self.lanes if takes(other)]
            if open_lanes:
                self.move(stream, min(open_lanes, key=lambda other: len(other.streams)))
            else:
                self.changed.notify_all()  # others are wanted now

    def move(self, stream: Stream, lane: Lane) -> None:
        """Its next rows go to another shard, in a new stream."""
        old = stream.lane
        self.seal(old)
        stream.sent.open = False
        old.streams.remove(stream)
        old.sender.notify()
        stream.begin(lane)
        self.moves += 1

    def seal(self, lane: Lane) -> None:
        """Makes a message of the rows in the streams' buffers."""
        if not lane.pending_bytes:
            return
        runs = []
        for stream in lane.streams:
            rows = stream.take_pending()
            if rows is not None:
                runs.append((stream.sent, rows))
        lane.pending_bytes = 0
        lane.unacked.push(runs)
