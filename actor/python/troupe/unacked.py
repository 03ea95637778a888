"""The rows that one shard has not acked: the writer's side of the contract of Append.

Acks are cumulative, what was sent may be sent again, and no stream ever has a gap.  Nothing here is
thread-safe; the writer's lock guards it.
"""

from __future__ import annotations

import collections
import dataclasses
import secrets

from troupe.codec import RowCodec
from troupe.errors import TroupeError
from troupe.proto import replay_pb2


def random_id() -> int:
    """A random 64-bit name of a stream; never 0."""
    return secrets.randbits(64) or 1


@dataclasses.dataclass(eq=False, slots=True)
class SentStream:
    """One stream on one shard.  Rows are counted from its beginning here.

    A shard that lost acked rows gets what follows under a new name: `base` rows are no part of
    that.
    """

    id: int = dataclasses.field(default_factory=random_id)
    base: int = 0
    appended: int = 0
    sent: int = 0  # the highest number of rows that ever went out under this name
    acked: int = 0
    open: bool = True  # may get more rows


@dataclasses.dataclass(eq=False, slots=True)
class Run:
    """Consecutive rows of one stream."""

    stream: SentStream
    first: int
    rows: memoryview
    stride_bytes: int

    @property
    def end(self) -> int:
        return self.first + len(self.rows) // self.stride_bytes


class UnackedRows:
    """Messages in the order in which they were made."""

    def __init__(self, stride_bytes: int, codec: RowCodec | None = None):
        """`codec`: rows are encoded when they are sent.  What is counted is their size packed."""
        self._codec = codec
        self._stride_bytes = stride_bytes
        self._queue: collections.deque[list[Run]] = collections.deque()
        self._streams: list[SentStream] = []
        self._num_sent = 0  # messages at the front that were sent
        self._sent_bytes = 0
        self.bytes = 0
        self.rows_acked = 0
        self.streams_renamed = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def live_streams(self) -> list[SentStream]:
        """Those that may get rows, and those with rows that are not acked."""
        return [stream for stream in self._streams if stream.open or stream.acked < stream.appended]

    def begin_stream(self) -> SentStream:
        """A stream that the shard has not heard of."""
        self._streams = self.live_streams
        stream = SentStream()
        self._streams.append(stream)
        return stream

    def push(self, runs: list[tuple[SentStream, memoryview]]) -> None:
        """One message."""
        message = []
        for stream, rows in runs:
            run = Run(stream, stream.appended, rows, self._stride_bytes)
            stream.appended = run.end
            self.bytes += len(rows)
            message.append(run)
        self._queue.append(message)

    def next_to_send(self, window_bytes: int) -> replay_pb2.AppendRequest | None:
        """The oldest message that was not sent on this call, if it fits into the shard's window."""
        if self._num_sent == len(self._queue):
            return None
        message = self._queue[self._num_sent]
        size = sum(len(run.rows) for run in message)
        if self._num_sent > 0 and self._sent_bytes + size > window_bytes:
            return None
        request = replay_pb2.AppendRequest()
        for run in message:
            run.stream.sent = max(run.stream.sent, run.end)
            request.runs.add(stream=run.stream.id, first_row=run.first - run.stream.base,
                             rows=self._codec.encode(run.rows) if self._codec else bytes(run.rows))
        self._num_sent += 1
        self._sent_bytes += size
        return request

    def ack(self, reply: replay_pb2.AppendReply) -> None:
        """TroupeError: the shard acks what it never got."""
        for stream, held in self._held(reply).items():
            self._record(stream, held)
        while self._num_sent > 0 and all(r.end <= r.stream.acked for r in self._queue[0]):
            size = sum(len(run.rows) for run in self._queue.popleft())
            self.bytes -= size
            self._sent_bytes -= size
            self._num_sent -= 1

    def resume(self, reply: replay_pb2.AppendReply) -> None:
        """After a reconnect: all that the shard does not hold is to be sent again."""
        self._num_sent = self._sent_bytes = 0
        held = self._held(reply)
        for stream in self.live_streams:
            now = held.get(stream, stream.base)
            self._record(stream, now)
            if now < stream.acked:
                stream.id = random_id()
                stream.base = stream.sent = stream.acked
                self.streams_renamed += 1
        self._trim()

    def _held(self, reply: replay_pb2.AppendReply) -> dict[SentStream, int]:
        streams = {stream.id: stream for stream in self._streams}
        held = {}
        for ack in reply.acks:
            stream = streams.get(ack.stream)
            if stream is None:
                continue  # one that is ended and wholly acked
            held[stream] = stream.base + ack.held_rows
            if held[stream] > stream.sent:
                raise TroupeError(f"ack of {ack.held_rows} rows of stream {ack.stream:016x}, "
                                  f"{stream.sent - stream.base} were sent")
        return held

    def _record(self, stream: SentStream, held: int) -> None:
        if held > stream.acked:
            self.rows_acked += held - stream.acked
            stream.acked = held

    def _trim(self) -> None:
        """Takes off what is acked."""
        messages: collections.deque[list[Run]] = collections.deque()
        for message in self._queue:
            kept = []
            for run in message:
                cut = min(max(run.stream.acked - run.first, 0), run.end - run.first)
                run.rows = run.rows[cut * self._stride_bytes:]
                run.first += cut
                self.bytes -= cut * self._stride_bytes
                if run.rows:
                    kept.append(run)
            if kept:
                messages.append(kept)
        self._queue = messages
