"""Policies as they are published."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from troupe.crc32c import crc32c
from troupe.errors import Closed, Refused, TroupeError
from troupe.proto import weights_pb2
from troupe.shards import Backoff, Shard, to_error

if TYPE_CHECKING:
    from troupe.policy import Policy

COUNTER_BITS = 40
_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One immutable policy and its version."""

    run: str
    version: int  # epoch << 40 | counter; grows within a run
    created_unix_ns: int
    image: bytes = dataclasses.field(repr=False)  # safetensors; its digest was checked

    @property
    def epoch(self) -> int:
        """Of the learner's start."""
        return self.version >> COUNTER_BITS

    @property
    def counter(self) -> int:
        """Of the snapshots of that start."""
        return self.version & ((1 << COUNTER_BITS) - 1)

    def policy(self, seed: int = 0) -> Policy:
        """Ready to act, in NumPy."""
        from troupe.policy import Policy
        return Policy.from_image(self.image, seed)


class SnapshotAssembler:
    """Makes snapshots of chunks, everything checked."""

    def __init__(self, run: str, max_bytes: int = 1 << 30):
        self._run, self._max_bytes = run, max_bytes
        self._header: weights_pb2.SnapshotHeader | None = None
        self._parts: list[bytes] = []
        self._missing = 0

    def add(self, chunk: weights_pb2.SnapshotChunk) -> Snapshot | None:
        """A snapshot that is whole; TroupeError: the chunk, or what it completes, is wrong."""
        if chunk.HasField("header"):
            self._begin(chunk.header)
        header = self._header
        if header is None:
            raise TroupeError("a chunk before any header")
        if len(chunk.data) > self._missing:
            raise TroupeError(f"more than the {header.size_bytes} bytes announced for version "
                              f"{header.version}")
        self._parts.append(chunk.data)
        self._missing -= len(chunk.data)
        if self._missing:
            return None
        image = b"".join(self._parts)
        self._header, self._parts = None, []
        if crc32c(image) != header.crc32c:
            raise TroupeError(f"the digest of version {header.version} is not the one announced")
        return Snapshot(header.run, header.version, header.created_unix_ns, image)

    def _begin(self, header: weights_pb2.SnapshotHeader) -> None:
        if self._header is not None:
            raise TroupeError(f"version {self._header.version} breaks off")
        if header.run != self._run or not header.version:
            raise TroupeError(f"version {header.version} of run '{header.run}', not '{self._run}'")
        if not 1 <= header.size_bytes <= self._max_bytes:
            raise TroupeError(f"version {header.version} has {header.size_bytes} bytes, must be 1 "
                              f"to {self._max_bytes}")
        self._header = weights_pb2.SnapshotHeader()
        self._header.CopyFrom(header)
        self._missing = header.size_bytes


def chunks(snapshot: Snapshot) -> Iterator[weights_pb2.SnapshotChunk]:
    """Of Weights.Publish."""
    image = snapshot.image
    yield weights_pb2.SnapshotChunk(header=weights_pb2.SnapshotHeader(
        run=snapshot.run, version=snapshot.version, size_bytes=len(image), crc32c=crc32c(image),
        created_unix_ns=snapshot.created_unix_ns))
    for begin in range(0, len(image), _CHUNK_BYTES):
        yield weights_pb2.SnapshotChunk(data=image[begin:begin + _CHUNK_BYTES])


class Subscriber:
    """Keeps the newest snapshot that any shard sends; made by Client.subscribe.

    Subscribes to one shard and, while that is gone, to the others in turn.  Iterating gives each
    newer snapshot as it comes; who is slow skips some.  Thread-safe.
    """

    def __init__(self, shards: Sequence[Shard], run: str, newer_than: int = 0,
                 preferred_shard: int = 0):
        self._shards, self._run = list(shards), run
        self._preferred = preferred_shard % len(self._shards)
        self._version = newer_than
        self._newest: Snapshot | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopped = False
        self._permanent: Exception | None = None
        self._last_break = "no answer yet"
        self._call: Any = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="troupe-subscribe")
        self._thread.start()

    @property
    def newest(self) -> Snapshot | None:
        """None until the first one has come."""
        with self._lock:
            return self._newest

    def wait_newer(self, version: int = 0, timeout: float | None = None) -> Snapshot:
        """A snapshot of a version above `version`; TimeoutError says whom it waited for."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while self._newest is None or self._newest.version <= version:
                if self._permanent is not None:
                    raise self._permanent
                if self._stopped:
                    raise Closed("the subscriber is closed")
                if deadline is not None and time.monotonic() >= deadline:
                    names = ", ".join(shard.name for shard in self._shards)
                    raise TimeoutError(f"no snapshot newer than {version} of {names}: "
                                       f"{self._last_break}")
                self._changed.wait(_POLL_SECONDS)
            return self._newest

    def __iter__(self) -> Iterator[Snapshot]:
        version = 0
        while True:
            snapshot = self.wait_newer(version)
            version = snapshot.version
            yield snapshot

    def close(self) -> None:
        """Ends the call."""
        with self._lock:
            self._stopped = True
            if self._call is not None:
                self._call.cancel()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        backoff = Backoff()
        at = self._preferred
        while True:
            shard = self._shards[at % len(self._shards)]
            error = self._subscribe(shard, backoff)
            with self._lock:
                if isinstance(error, Refused):
                    self._permanent = error
                self._last_break = str(error)
                self._changed.notify_all()
                if self._stopped or self._permanent is not None:
                    return
                self._changed.wait_for(lambda: self._stopped, backoff.next())
            shard.look_again()
            at += 1

    def _subscribe(self, shard: Shard, backoff: Backoff) -> Exception:
        """One call, until it ends; returns why."""
        what = f"subscribing to {shard.name}"
        error: Exception = TroupeError(f"{what}: the shard ended the call")
        assembler = SnapshotAssembler(self._run)
        try:
            with shard.connect() as stubs:
                with self._lock:
                    self._call = stubs.subscribe(
                        weights_pb2.SubscribeRequest(run=self._run, newer_than=self._version),
                        metadata=shard.metadata)
                    if self._stopped:
                        self._call.cancel()
                for chunk in self._call:
                    snapshot = assembler.add(chunk)
                    if snapshot is not None:
                        self._accept(snapshot)
                        backoff.reset()
        except grpc.RpcError as broken:
            error = to_error(broken, what)
        except (TroupeError, OSError) as broken:
            error = broken
        with self._lock:
            self._call = None
        return error

    def _accept(self, snapshot: Snapshot) -> None:
        with self._lock:
            if snapshot.version <= self._version:
                raise TroupeError(f"version {snapshot.version} after {self._version}")
            self._version = snapshot.version
            self._newest = snapshot
            self._changed.notify_all()
