"""SampleReply where it lies: rows are not copied on the way to NumPy."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from troupe.codec import RowCodec
from troupe.errors import TroupeError
from troupe.proto import replay_pb2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclasses.dataclass(slots=True)
class SampleReply:
    """As in proto/replay.proto."""

    windows: memoryview
    row_ids: np.ndarray
    probabilities: np.ndarray
    mass: float
    counts: replay_pb2.TableCounts


def parse(data: bytes, asked: int, window_bytes: int,
          codec: RowCodec | None = None) -> SampleReply:
    """TroupeError: it is no answer to a request for `asked` windows of `window_bytes`.

    `codec`: the rows come encoded.
    """
    try:
        fields = _fields(data)
        mass = struct.unpack("<d", fields.get(4, bytes(8)))[0]
        reply = SampleReply(
            windows=fields.get(1, memoryview(b"")),
            row_ids=np.frombuffer(fields.get(2, b""), "<u8"),
            probabilities=np.frombuffer(fields.get(3, b""), "<f4"), mass=mass,
            counts=replay_pb2.TableCounts.FromString(bytes(fields.get(5, b""))))
    except Exception as error:
        raise TroupeError(f"an answer of {len(data)} bytes that is no SampleReply") from error
    received = len(reply.row_ids)
    if codec is not None and received <= asked:
        rows = received * window_bytes // codec.stride_bytes
        reply.windows = memoryview(codec.decode(reply.windows, rows))
    if (received > asked or len(reply.probabilities) != received
            or len(reply.windows) != received * window_bytes or not 0 <= mass < float("inf")):
        raise TroupeError(f"answer of {len(reply.windows)} bytes, {received} ids, "
                          f"{len(reply.probabilities)} probabilities, mass {mass} to a request for "
                          f"{asked} windows of {window_bytes} bytes")
    return reply


def _fields(data: bytes) -> dict[int, memoryview]:
    """The bytes of each field by its number; of one that is there twice the last counts."""
    view = memoryview(data)
    fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        begin = at
        if kind == _BYTES:
            length, begin = _varint(data, at)
            at = begin + length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("cut off")
        fields[tag >> 3] = view[begin:at]
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number that does not end")
