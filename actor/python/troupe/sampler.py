"""Windows drawn from all shards as if they were one table."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from troupe import sample_reply
from troupe.codec import codec_of
from troupe.errors import Closed, Refused, TroupeError
from troupe.layout import Layout
from troupe.proto import replay_pb2
from troupe.shards import Backoff, Shard, to_error
from troupe.windows import Windows

# How long a shard may hold back a request: alone, and beside others whose counts may have grown.
_TIMEOUT_MS = 1000
_TIMEOUT_BESIDE_OTHERS_MS = 250
# How much longer it may say nothing before it is taken for gone.
_SILENCE_SECONDS = 3.0
# A shard that is asked for no windows is asked for its counts so often.
_ASK_SECONDS = 0.2
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of a table, summed over the shards; those of a shard that is gone are the last known."""

    env_steps: int = 0  # rows stored that are not final
    inserted: int = 0  # windows
    sampled: int = 0  # windows
    preloaded: int = 0  # windows


@dataclasses.dataclass(slots=True)
class _Part:
    """Windows [begin, end) of a reply."""

    reply: sample_reply.SampleReply
    begin: int
    end: int
    shard: int
    share: float


class _Batch:
    def __init__(self, size: int):
        self.missing = size
        self.parts: list[_Part] = []


@dataclasses.dataclass(slots=True)
class _Piece:
    """Windows of a batch that one shard is asked for; without a batch: a question."""

    batch: _Batch | None
    count: int
    share: float = 1.0  # of the shard in the mass of all
    inserted_above: int = 0
    timeout_ms: int = 0
    priorities: replay_pb2.PriorityUpdates | None = None


class _Lane:
    """The way to one shard.  Guarded by the sampler's lock."""

    def __init__(self, index: int, shard: Shard, lock: threading.Lock, group: int):
        self.index = index
        self.shard = shard
        self.sender = threading.Condition(lock)
        self.to_send: collections.deque[_Piece] = collections.deque()
        # Pieces that one request asks for together.
        self.asked: collections.deque[list[_Piece]] = collections.deque()
        self.group = group
        self.call: Any = None
        self.up = False
        self.tried = False
        self.mass = 0.0
        self.counts = replay_pb2.TableCounts()
        self.last_asked = 0.0
        self.answer_due = 0.0
        self.last_break = "no answer yet"

    @property
    def num_asked(self) -> int:
        return (sum(piece.count for pieces in self.asked for piece in pieces)
                + sum(piece.count for piece in self.to_send))

    def take_group(self) -> list[_Piece]:
        """Moves what the next request asks for from to_send to asked."""
        pieces = [self.to_send.popleft()]
        while (pieces[0].batch is not None and len(pieces) < self.group and self.to_send
               and self.to_send[0].batch is not None):
            pieces.append(self.to_send.popleft())
        self.asked.append(pieces)
        return pieces


class _Session:
    """One call."""

    over = False


class Sampler:
    """Batches of windows of a table, drawn from the union of its shards.

    Each batch is split over the shards by their mass, some batches are asked for ahead, and a shard
    that is gone is left out, its part drawn from the others, until it is back.  The table's rate
    limiter holds batches back until enough was inserted.

    Made by Client.sampler.  Thread-safe.
    """

    def __init__(self, shards: Sequence[Shard], run: str, table: str, layout: Layout,
                 window_length: int, batch_size: int, prefetch: int = 8,
                 seed: int | None = None):
        if batch_size < 1 or prefetch < 1:
            raise ValueError(f"batch_size {batch_size} and prefetch {prefetch} must be positive")
        self.layout = layout
        self.window_length = window_length
        self.batch_size = batch_size
        self._run, self._table, self._prefetch = run, table, prefetch
        self._random = np.random.default_rng(seed)
        self._window_bytes = window_length * layout.stride_bytes
        self._codec = codec_of(layout)
        self._timeout_ms = _TIMEOUT_MS if len(shards) == 1 else _TIMEOUT_BESIDE_OTHERS_MS
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._permanent: Exception | None = None
        self._started = False
        self._batches: list[_Batch] = []
        self._orphans: list[tuple[_Batch, int]] = []
        self._lanes = [_Lane(i, shard, self._lock, max(1, prefetch // 2))
                       for i, shard in enumerate(shards)]
        self._threads = [threading.Thread(target=self._run_lane, args=[lane], daemon=True,
                                          name=f"troupe-sample-{lane.shard.name}")
                         for lane in self._lanes]
        for thread in self._threads:
            thread.start()

    def next_batch(self, timeout: float | None = None) -> Windows:
        """The next batch; TimeoutError says what it waits for."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._started = True
            while True:
                if self._permanent is not None:
                    raise self._permanent
                if self._stopped:
                    raise Closed("the sampler is closed")
                done = next((batch for batch in self._batches if not batch.missing), None)
                if done is not None:
                    break
                self._advance()
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(self._why())
                self._changed.wait(_POLL_SECONDS)
            self._batches.remove(done)
            self._advance()
        return self._assemble(done)

    def __iter__(self) -> Iterator[Windows]:
        while True:
            yield self.next_batch()

    def update_priorities(self, windows: Windows, priorities: npt.ArrayLike) -> None:
        """New priorities, one a window, 0 to 1e30; those of evicted rows are ignored.

        Returns at once: they are applied before the next batch that is asked for is drawn.
        """
        values = np.asarray(priorities, np.float32)
        if values.shape != windows.row_ids.shape or not np.all((values >= 0) & (values <= 1e30)):
            raise ValueError(f"{values.shape} priorities for {windows.row_ids.shape} windows, or "
                             "one that is not 0 to 1e30")
        with self._lock:
            for lane in self._lanes:
                mine = windows.shards == lane.index
                if lane.up and mine.any():
                    lane.to_send.append(_Piece(None, 0, priorities=replay_pb2.PriorityUpdates(
                        row_ids=windows.row_ids[mine].tolist(), priorities=values[mine].tolist())))
                    lane.sender.notify()

    @property
    def counts(self) -> Counts:
        """As of the shards' last answers."""
        with self._lock:
            return Counts(*(sum(getattr(lane.counts, field.name) for lane in self._lanes)
                            for field in dataclasses.fields(Counts)))

    @property
    def shards_up(self) -> int:
        """That answer now."""
        with self._lock:
            return sum(lane.up for lane in self._lanes)

    def close(self) -> None:
        """Ends all calls."""
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                if lane.call is not None:
                    lane.call.cancel()
                lane.sender.notify_all()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Batches.  All of these but _assemble are called with the lock held.

    def _assemble(self, batch: _Batch) -> Windows:
        rows = np.empty((self.batch_size, self.window_length), self.layout.dtype)
        to = memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        row_ids = np.empty(self.batch_size, np.uint64)
        shards = np.empty(self.batch_size, np.int32)
        probabilities = np.empty(self.batch_size, np.float32)
        at = 0
        size = self._window_bytes
        for part in batch.parts:
            reply, begin, end = part.reply, part.begin, part.end
            until = at + end - begin
            to[at * size:until * size] = reply.windows[begin * size:end * size]
            row_ids[at:until] = reply.row_ids[begin:end]
            shards[at:until] = part.shard
            probabilities[at:until] = reply.probabilities[begin:end]
            probabilities[at:until] *= part.share
            at = until
        return Windows(self.layout, rows, row_ids, shards, probabilities)

    def _advance(self) -> None:
        """Asks for all that may be asked for now."""
        now = time.monotonic()
        if not self._started or not all(lane.tried for lane in self._lanes):
            return
        # Several at once, so that they are asked for together.
        if len(self._batches) <= self._prefetch // 2:
            while len(self._batches) < self._prefetch:
                self._batches.append(_Batch(self.batch_size))
                self._orphans.append((self._batches[-1], self.batch_size))
        if self._orphans:
            self._place_orphans()
        for lane in self._lanes:
            if lane.up and not lane.asked and not lane.to_send:
                self._ask_counts(lane, now)
            if lane.asked and now > lane.answer_due and lane.call is not None:
                lane.last_break = "it has said nothing for too long"
                lane.call.cancel()

    def _place_orphans(self) -> None:
        """Splits what no shard was asked for, unless none has any windows."""
        masses = np.array([lane.mass if lane.up else 0.0 for lane in self._lanes])
        if not masses.sum() > 0:
            return
        shares = masses / masses.sum()
        for batch, count in self._orphans:
            counts = [count] if len(shares) == 1 else self._random.multinomial(count, shares)
            for lane, windows, share in zip(self._lanes, counts, shares):
                if windows:
                    lane.to_send.append(_Piece(batch, int(windows), float(share),
                                               timeout_ms=self._timeout_ms))
                    lane.sender.notify()
        self._orphans.clear()

    def _ask_counts(self, lane: _Lane, now: float) -> None:
        """Of a shard without windows: waits for some to come."""
        if lane.mass > 0:
            if now < lane.last_asked + _ASK_SECONDS:
                return
            lane.to_send.append(_Piece(None, 0))
        else:
            lane.to_send.append(_Piece(None, 0, inserted_above=lane.counts.inserted,
                                       timeout_ms=self._timeout_ms))
        lane.sender.notify()

    def _why(self) -> str:
        words = [f"{lane.shard.name} " + (
            f"up, mass {lane.mass:g}, {lane.counts.inserted} windows inserted, asked for "
            f"{lane.num_asked}" if lane.up else f"gone: {lane.last_break}") for lane in self._lanes]
        return f"no batch of {self.batch_size} windows yet; {'; '.join(words)}"

    # Connections.

    def _run_lane(self, lane: _Lane) -> None:
        backoff = Backoff()
        while True:
            error = self._session(lane, backoff)
            with self._lock:
                if isinstance(error, Refused) and self._permanent is None:
                    self._permanent = error
                if lane.last_break == "no answer yet" or not isinstance(error, grpc.RpcError):
                    lane.last_break = str(error)
                lane.tried = True
                self._changed.notify_all()
                if not self._stopped and self._permanent is None:
                    self._changed.wait_for(lambda: self._stopped, backoff.next())
                if self._stopped or self._permanent is not None:
                    return
            lane.shard.look_again()

    def _session(self, lane: _Lane, backoff: Backoff) -> Exception:
        """One call, until it ends; returns why."""
        session = _Session()
        what = f"sampling from {lane.shard.name}"
        error: Exception = TroupeError(f"{what}: the shard ended the call")
        with self._lock:
            lane.asked.append([_Piece(None, 0)])
        try:
            with lane.shard.connect() as stubs:
                call = stubs.sample(self._requests(lane, session), metadata=lane.shard.metadata)
                with self._lock:
                    lane.call = call
                    if self._stopped:
                        call.cancel()
                for data in call:
                    self._on_reply(lane, data, backoff)
        except grpc.RpcError as broken:
            error = to_error(broken, what)
        except (TroupeError, OSError) as broken:
            error = broken
        with self._lock:
            session.over = True
            lane.up = False
            lane.call = None
            lost = [piece for pieces in lane.asked for piece in pieces] + list(lane.to_send)
            self._orphans += [(p.batch, p.count) for p in lost if p.batch is not None]
            lane.asked.clear()
            lane.to_send.clear()
            lane.sender.notify_all()
        return error

    def _requests(self, lane: _Lane, session: _Session) -> Iterator[replay_pb2.SampleRequest]:
        """What the call sends; runs on a thread of gRPC's."""
        yield replay_pb2.SampleRequest(
            open=replay_pb2.SampleOpen(run=self._run, table=self._table))
        yield replay_pb2.SampleRequest()  # its answer says that the shard is up
        while True:
            with self._lock:
                while not (session.over or self._stopped or lane.to_send):
                    lane.sender.wait()
                if session.over or self._stopped:
                    return
                pieces = lane.take_group()
                lane.last_asked = time.monotonic()
                lane.answer_due = lane.last_asked + pieces[0].timeout_ms / 1000 + _SILENCE_SECONDS
                request = self._request(lane, pieces)
            yield request

    def _request(self, lane: _Lane, pieces: list[_Piece]) -> replay_pb2.SampleRequest:
        piece = pieces[0]
        others = [other for other in self._lanes if other is not lane]
        return replay_pb2.SampleRequest(
            num_windows=sum(each.count for each in pieces), timeout_ms=piece.timeout_ms,
            inserted_above=piece.inserted_above, priorities=piece.priorities,
            lacks_windows=self.batch_size if piece.timeout_ms and not piece.count else 0,
            others_inserted=sum(other.counts.inserted for other in others),
            others_preloaded=sum(other.counts.preloaded for other in others),
            others_sampled=sum(other.counts.sampled + other.num_asked for other in others),
            num_shards=len(self._lanes))

    def _on_reply(self, lane: _Lane, data: bytes, backoff: Backoff) -> None:
        asked = sum(piece.count for piece in lane.asked[0]) if lane.asked else 0
        reply = sample_reply.parse(data, asked, self._window_bytes, self._codec)
        with self._lock:
            if not lane.asked:
                raise TroupeError(f"{lane.shard.name}: an answer to no request")
            pieces = lane.asked.popleft()
            lane.answer_due = time.monotonic() + self._timeout_ms / 1000 + _SILENCE_SECONDS
            lane.mass, lane.counts = reply.mass, reply.counts
            if not lane.up:
                lane.up = lane.tried = True
                backoff.reset()
            if asked and not len(reply.row_ids):
                lane.group = 1  # a rate limiter may let one batch through, and several never
            done = pieces[0].batch is None
            at = 0
            for piece in pieces:
                if piece.batch is not None:
                    at = self._receive(lane, piece, piece.batch, reply, at)
                    done |= not piece.batch.missing
            if self._orphans or pieces[0].batch is None:
                self._advance()
            if done:
                self._changed.notify()

    def _receive(self, lane: _Lane, piece: _Piece, batch: _Batch, reply: sample_reply.SampleReply,
                 at: int) -> int:
        """Takes windows from `at` on; returns where the next piece's begin."""
        end = min(at + piece.count, len(reply.row_ids))
        if end > at:
            batch.parts.append(_Part(reply, at, end, lane.index, piece.share))
            batch.missing -= end - at
        if end - at < piece.count:
            self._orphans.append((batch, piece.count - (end - at)))
        return end
