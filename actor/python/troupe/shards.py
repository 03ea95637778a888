"""Connections to shards: addresses, certificates, and who is where."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import random
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from troupe.errors import Refused, TroupeError, describe, is_permanent
from troupe.proto import replay_pb2, weights_pb2

IDENTIFY_SECONDS = 5.0
_MAX_REPLY_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Credentials:
    """How connections are made: mutual TLS, or plaintext.

    The files are read for every connection, so that renewed ones are taken up.  What a client may
    do is said by the common name in its certificate: "actor" (append, subscribe), "learner"
    (sample, follow, subscribe, publish) or "operator" (everything); deploy/certs makes such
    certificates.
    """

    ca: pathlib.Path | None = None
    cert: pathlib.Path | None = None
    key: pathlib.Path | None = None
    # Plaintext beyond this machine: the network is trusted.
    insecure: bool = False

    @classmethod
    def of(cls, tls_dir: str | os.PathLike | None = None, *, ca: str | os.PathLike | None = None,
           cert: str | os.PathLike | None = None, key: str | os.PathLike | None = None,
           insecure: bool = False) -> Credentials:
        """Of a folder with ca.pem, cert.pem and key.pem, or of three files; of none: plaintext."""
        files = [ca, cert, key]
        if tls_dir is not None:
            if any(files):
                raise ValueError("give tls_dir or ca, cert and key, not both")
            files = [pathlib.Path(tls_dir) / f"{name}.pem" for name in ("ca", "cert", "key")]
        if not any(files):
            return cls(insecure=insecure)
        if not all(files):
            raise ValueError("mutual TLS takes three files: ca, cert and key")
        if insecure:
            raise ValueError("insecure is for plaintext, and there are certificates")
        paths = [pathlib.Path(str(file)) for file in files]
        for path in paths:
            with open(path, "rb"):
                pass  # FileNotFoundError and the like name the file
        return cls(paths[0], paths[1], paths[2])

    def channel(self, target: str, address: str) -> grpc.Channel:
        """A connection of its own to `address`, held to the host's name in `target`."""
        options = _channel_options()
        if self.ca is None or self.cert is None or self.key is None:
            if not self.insecure and not is_loopback(target):
                raise TroupeError(f"'{target}' is not on this machine, and the connection would be "
                                  "plaintext: give tls_dir, or insecure=True if the network is "
                                  "trusted")
            return grpc.insecure_channel(address, options)
        if address != target:
            options.append(("grpc.ssl_target_name_override", target.rpartition(":")[0]))
        credentials = grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())
        return grpc.secure_channel(address, credentials, options)


def is_loopback(target: str) -> bool:
    """Is host:port this machine, by its name alone?"""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _channel_options() -> list[tuple[str, Any]]:
    """As common/channel.cc has them."""
    name = f"{pathlib.Path(sys.argv[0] or 'python').name}@{socket.gethostname()}/{os.getpid()}"
    agent = "".join(c if c.isprintable() and c.isascii() and c != " " else "?" for c in name)
    return [
        ("grpc.primary_user_agent", agent),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 250),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", _MAX_REPLY_BYTES),
        ("grpc.max_send_message_length", _MAX_REPLY_BYTES),
    ]


class Backoff:
    """Delays that double from `least` to `most` seconds, each drawn from [1/2, 1] of that."""

    def __init__(self, least: float = 0.05, most: float = 2.0):
        self._least = self._next = least
        self._most = most

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = self._next * random.uniform(0.5, 1)
        self._next = min(2 * self._next, self._most)
        return delay

    def reset(self) -> None:
        """After a success."""
        self._next = self._least


class Stubs:
    """The services' methods on one connection."""

    def __init__(self, channel: grpc.Channel):
        def method(kind: Any, path: str, request: Any, reply: Any) -> Any:
            return kind(f"/troupe.proto.{path}", request_serializer=request.SerializeToString,
                        response_deserializer=reply.FromString)

        r, w = replay_pb2, weights_pb2
        self.append = method(channel.stream_stream, "Replay/Append", r.AppendRequest, r.AppendReply)
        # Replies are read by troupe.sampler where they lie.
        self.sample = channel.stream_stream(
            "/troupe.proto.Replay/Sample",
            request_serializer=r.SampleRequest.SerializeToString, response_deserializer=None)
        self.follow = method(channel.unary_stream, "Replay/Follow", r.FollowRequest, r.FollowReply)
        self.identify = method(channel.unary_unary, "Replay/Identify", r.IdentifyRequest,
                               r.IdentifyReply)
        self.describe = method(channel.unary_unary, "Replay/Describe", r.DescribeRequest,
                               r.DescribeReply)
        self.drain = method(channel.unary_unary, "Replay/Drain", r.DrainRequest, r.DrainReply)
        self.publish = method(channel.stream_unary, "Weights/Publish", w.SnapshotChunk,
                              w.PublishReply)
        self.subscribe = method(channel.unary_stream, "Weights/Subscribe", w.SubscribeRequest,
                                w.SnapshotChunk)


class Shard:
    """One shard, wherever it is now.

    A shard that is given by an address is whoever answers there.  One of a name that stands for
    several is known by its number (Replay.Identify), and looked for at all addresses of the name
    when it is not where it was.
    """

    def __init__(self, target: str, address: str, credentials: Credentials, identity: int = 0):
        self.target = target
        self.address = address
        self.identity = identity
        self._credentials = credentials

    @property
    def name(self) -> str:
        """For messages."""
        return self.target if self.address == self.target else f"{self.target} ({self.address})"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of calls: so that no other shard takes what is meant for this one."""
        return (("troupe-shard", f"{self.identity:x}"),) if self.identity else ()

    @contextlib.contextmanager
    def connect(self) -> Iterator[Stubs]:
        """A connection that is closed behind."""
        channel = self._credentials.channel(self.target, self.address)
        try:
            yield Stubs(channel)
        finally:
            channel.close()

    def ask_identity(self, timeout: float = IDENTIFY_SECONDS) -> int:
        """The number of the shard that answers here."""
        with self.connect() as stubs:
            try:
                return stubs.identify(replay_pb2.IdentifyRequest(), timeout=timeout).shard
            except grpc.RpcError as error:
                raise to_error(error, f"asking {self.name} who it is") from error

    def look_again(self) -> None:
        """Of a name: finds where the shard is now, if it moved.  Never raises."""
        if not self.identity:
            return
        for address in resolve(self.target):
            there = Shard(self.target, address, self._credentials)
            with contextlib.suppress(TroupeError, TimeoutError):
                if there.ask_identity(timeout=1.0) == self.identity:
                    self.address = address
                    return


def resolve(target: str) -> list[str]:
    """Addresses host:port of a name; of an address that alone."""
    host, _, port = target.rpartition(":")
    if target.startswith("unix:") or host == "localhost" or _is_address(host.strip("[]")):
        return [target]
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    hosts = sorted({str(entry[4][0]) for entry in found})
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


def find_shards(targets: Sequence[str], credentials: Credentials) -> list[Shard]:
    """The shards of a configuration's list: an address is one, a name all that are at it now."""
    shards = []
    for target in targets:
        addresses = resolve(target)
        if not addresses:
            raise TroupeError(f"shard '{target}': no such host")
        if addresses == [target]:
            shards.append(Shard(target, target, credentials))
            continue
        for address in addresses:
            shard = Shard(target, address, credentials)
            shard.identity = shard.ask_identity()
            shards.append(shard)
    if not shards:
        raise ValueError("no shards")
    return shards


def to_error(error: grpc.RpcError, what: str) -> Exception:
    """Refused, TimeoutError or TroupeError, with the shard's own words."""
    code = error.code()  # type: ignore[attr-defined]
    text = describe(error, what)
    if is_permanent(code):
        return Refused(text, code)
    return TimeoutError(text) if code == grpc.StatusCode.DEADLINE_EXCEEDED else TroupeError(text)
