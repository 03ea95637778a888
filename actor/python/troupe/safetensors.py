"""The safetensors format (huggingface.co/docs/safetensors), which snapshots and checkpoints are in.

A uint64 header size, a JSON header, then the tensors' bytes, little-endian and in C order.  Bytes
from outside are checked as common/safetensors.h does, whose limits these are.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_HEADER_BYTES = 1 << 20
MAX_AXES = 16
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"), "U8": np.dtype("u1")}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"


@dataclass(frozen=True)
class Image:
    """Tensors by name, and strings by key.  The arrays of a parsed image cannot be written to."""

    tensors: Mapping[str, np.ndarray]
    metadata: Mapping[str, str] = field(default_factory=dict)


def parse(image: bytes) -> Image:
    """Accepts hostile bytes: ValueError says what is wrong with them."""
    if len(image) < 8:
        raise ValueError(f"safetensors: {len(image)} bytes are too short for a header")
    header_bytes = struct.unpack_from("<Q", image)[0]
    if header_bytes > min(MAX_HEADER_BYTES, len(image) - 8):
        raise ValueError(f"safetensors: a header of {header_bytes} bytes; {len(image) - 8} follow, "
                         f"at most {MAX_HEADER_BYTES} are allowed")
    header = _parse_header(image[8:8 + header_bytes])
    metadata = header.pop(_METADATA, {})
    if not (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        raise ValueError("safetensors: __metadata__ holds something that is not a string")
    data = memoryview(image)[8 + header_bytes:]
    tensors = {name: _parse_tensor(name, entry, data) for name, entry in header.items()}
    _check_cover({name: entry["data_offsets"] for name, entry in header.items()}, len(data))
    return Image(tensors, metadata)


def encode(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The same bytes for the same arguments, and the same as C++ writes."""
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in _NAMES or name == _METADATA:
            raise ValueError(f"safetensors: tensor '{name}': {array.dtype} cannot be written")
    # Larger elements first, so that every tensor is aligned to its element; then by name.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name.encode()))
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": _NAMES[array.dtype.newbyteorder("<")],
                        "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"safetensors: a header of {len(text)} bytes")
    parts = [arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes() for name in order]
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"safetensors: '{twice[:256]}' is there twice")
    return result


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_doubles)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("safetensors: the header is not well-formed JSON") from None
    if not isinstance(header, dict):
        raise ValueError("safetensors: the header is not a JSON object")
    return header


def _sizes(name: str, entry: dict[str, Any], key: str) -> list[int]:
    sizes: Any = entry.get(key)
    whole = isinstance(sizes, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in sizes)
    if not whole or len(sizes) > MAX_AXES:
        raise ValueError(f"safetensors: tensor '{name}': {key} is no list of sizes")
    return sizes


def _parse_tensor(name: str, entry: Any, data: memoryview) -> np.ndarray:
    if not isinstance(entry, dict):
        raise ValueError(f"safetensors: tensor '{name}': its entry is not a JSON object")
    dtype = DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise ValueError(f"safetensors: tensor '{name}': dtype '{str(entry.get('dtype'))[:32]}' "
                         f"is none of {', '.join(DTYPES)}")
    shape, offsets = _sizes(name, entry, "shape"), _sizes(name, entry, "data_offsets")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(data):
        raise ValueError(f"safetensors: tensor '{name}': lies at {offsets} of {len(data)} bytes")
    begin, end = offsets
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"safetensors: tensor '{name}': {end - begin} bytes are not "
                         f"{entry['dtype']}{shape}")
    return np.frombuffer(data[begin:end], dtype).reshape(shape)


def _check_cover(offsets: dict[str, list[int]], data_bytes: int) -> None:
    """Tensors follow each other without gap or overlap, from the first byte to the last."""
    end = 0
    for name, (begin, next_end) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != end:
            raise ValueError(f"safetensors: tensor '{name}': begins at byte {begin}, the one "
                             f"before it ends at {end}")
        end = next_end
    if end != data_bytes:
        raise ValueError(f"safetensors: the tensors end at byte {end} of {data_bytes}")
