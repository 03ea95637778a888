"""Where everything begins: a run's shards, and what may be done with them."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from troupe.errors import TroupeError
from troupe.follower import Follower
from troupe.layout import Layout
from troupe.proto import replay_pb2
from troupe.sampler import Sampler
from troupe.shards import Credentials, find_shards, to_error
from troupe.snapshots import COUNTER_BITS, Snapshot, Subscriber, chunks
from troupe.writer import Writer
from troupe.writer_state import WriterOptions

_DESCRIBE_SECONDS = 5.0
_PUBLISH_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Table:
    """What the shards say of a table."""

    name: str
    layout: Layout
    window_length: int  # rows
    window_stride: int  # rows
    capacity_rows: int  # of each shard
    never_evict: bool
    shards_reached: int


class Client:
    """The shards of one run.

        client = troupe.Client(["10.0.0.7:7000"], run="demo", tls_dir="certs/actor")

    `shards` and `run` are those of the run's configuration, in the same order.  Certificates: a
    folder `tls_dir` as deploy/certs makes it, or three files; without them connections are
    plaintext, which is refused beyond this machine unless `insecure`.  Opens no connection of its
    own that stays; close what it makes.
    """

    def __init__(self, shards: Sequence[str] | str, run: str = "troupe", *,
                 tls_dir: str | os.PathLike | None = None, ca: str | os.PathLike | None = None,
                 cert: str | os.PathLike | None = None, key: str | os.PathLike | None = None,
                 insecure: bool = False):
        self.run = run
        self._credentials = Credentials.of(tls_dir, ca=ca, cert=cert, key=key, insecure=insecure)
        targets = [shards] if isinstance(shards, str) else list(shards)
        self.shards = tuple(find_shards(targets, self._credentials))

    def writer(self, layout: Layout, table: str = "replay", *, num_streams: int = 1,
               first_shard: int = 0, options: WriterOptions | None = None) -> Writer:
        """Of rows; needs the role "actor".

        `num_streams`: one for each environment.  Stream i begins at shard `first_shard` + i.
        """
        return Writer(self.shards, self.run, table, layout, num_streams, options, first_shard)

    def sampler(self, batch_size: int, table: str = "replay", *, prefetch: int = 8,
                seed: int | None = None, timeout: float = 30.0) -> Sampler:
        """Of windows; needs the role "learner".  Waits until a first writer has told the layout.

        `prefetch`: batches asked for ahead, up to half of them in one request.  New priorities are
        seen by the batches after those; 1 is the freshest and slowest.
        """
        found = self.table(table, timeout)
        return Sampler(self.shards, self.run, table, found.layout, found.window_length, batch_size,
                       prefetch, seed)

    def follow(self, table: str = "replay", *, position: Mapping[str, Any] | None = None,
               timeout: float = 30.0) -> Follower:
        """Of every row that is stored, in order; needs the role "learner".

        `position`: that of an earlier follower, behind which this one goes on.  Not given: the
        oldest rows.  Waits until a first writer has told the layout.
        """
        found = self.table(table, timeout)
        return Follower(self.shards, self.run, table, found.layout, found.capacity_rows, position)

    def subscribe(self, *, newer_than: int = 0, preferred_shard: int = 0) -> Subscriber:
        """To the policies that are published; needs the role "actor" or "learner"."""
        return Subscriber(self.shards, self.run, newer_than, preferred_shard)

    def new_epoch(self) -> int:
        """The first version of a learner that starts now, above all that the shards have seen."""
        seen = [reply.max_epoch for reply in self.describe() if reply is not None]
        if not seen:
            raise TroupeError("no shard answers")
        return (max(seen) + 1) << COUNTER_BITS | 1

    def publish(self, image: bytes, version: int) -> None:
        """Hands a policy of one's own learner to every shard; needs the role "learner".

        `image`: safetensors as the actors read it (troupe.policy).  Refused: a learner that started
        later has published.
        """
        snapshot = Snapshot(self.run, version, time.time_ns(), image)
        for shard in self.shards:
            with shard.connect() as stubs:
                try:
                    stubs.publish(chunks(snapshot), metadata=shard.metadata,
                                  timeout=_PUBLISH_SECONDS)
                except grpc.RpcError as error:
                    raise to_error(error, f"publishing to {shard.name}") from error

    def describe(self, timeout: float = _DESCRIBE_SECONDS) -> list[replay_pb2.DescribeReply | None]:
        """What each shard holds and who waits for what; None: it does not answer.

        Refused: the role may not ask, or the shard is of another run.
        """
        return [reply if isinstance(reply, replay_pb2.DescribeReply) else None
                for reply in self._describe(timeout)]

    def _describe(self, timeout: float) -> list[replay_pb2.DescribeReply | str]:
        answers: list[replay_pb2.DescribeReply | str] = []
        for shard in self.shards:
            with shard.connect() as stubs:
                try:
                    answers.append(stubs.describe(replay_pb2.DescribeRequest(run=self.run),
                                                  metadata=shard.metadata, timeout=timeout))
                except grpc.RpcError as error:
                    what = to_error(error, f"describing {shard.name}")
                    if not isinstance(what, TimeoutError) and type(what) is not TroupeError:
                        raise what from error
                    answers.append(str(what))
        return answers

    def table(self, name: str = "replay", timeout: float = 30.0) -> Table:
        """Waits until a shard knows the table's layout; TimeoutError says what each answered."""
        deadline = time.monotonic() + timeout
        while True:
            answers = self._describe(min(_DESCRIBE_SECONDS, max(0.1, deadline - time.monotonic())))
            found = self._find(name, answers)
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                words = [answer if isinstance(answer, str) else f"{shard.name} waits for a writer"
                         for shard, answer in zip(self.shards, answers)]
                raise TimeoutError(f"no shard knows the layout of table '{name}' yet; "
                                   f"{'; '.join(words)}")
            time.sleep(_PAUSE_SECONDS)

    def _find(self, name: str, answers: Sequence[Any]) -> Table | None:
        found: Table | None = None
        for shard, answer in zip(self.shards, answers):
            if isinstance(answer, str):
                continue
            tables = {table.name: table for table in answer.tables}
            if name not in tables:
                raise TroupeError(f"{shard.name} has no table '{name}'; there are: "
                                  f"{', '.join(sorted(tables))}")
            table = tables[name]
            if not table.HasField("layout"):
                continue
            layout = Layout.from_proto(table.layout)
            if found is not None and (layout, table.window_length) != (found.layout,
                                                                       found.window_length):
                raise TroupeError(f"{shard.name} has windows of {table.window_length} rows of "
                                  f"{layout}, another shard of {found.window_length} of "
                                  f"{found.layout}")
            reached = 1 + (found.shards_reached if found else 0)
            found = Table(name, layout, table.window_length, table.window_stride,
                          table.capacity_rows, table.never_evict, reached)
        return found
