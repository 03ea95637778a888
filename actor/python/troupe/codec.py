"""Rows with compressed columns as they travel and are stored: common/row_codec.h in Python.

LZ4 and Zstandard come from packages that only those need who compress: troupe[compression].
"""

from __future__ import annotations

import itertools
import struct
import threading
from collections.abc import Callable
from typing import Any

from troupe.errors import TroupeError
from troupe.layout import HEADER_BYTES, Column, Layout

_MULTIPLE = 8

# Bytes to fewer bytes, and what these were made of, by its size, back.
_Compress = Callable[[Any], bytes]
_Decompress = Callable[[Any, int], bytes]


def _lz4(_: int) -> tuple[_Compress, _Decompress]:
    import lz4.block  # type: ignore[import-not-found,import-untyped]
    return (lambda data: lz4.block.compress(data, store_size=False),
            lambda data, size: lz4.block.decompress(data, uncompressed_size=size))


def _zstd(level: int) -> tuple[_Compress, _Decompress]:
    import zstandard  # type: ignore[import-not-found]
    compressor = zstandard.ZstdCompressor(level=level)
    decompressor = zstandard.ZstdDecompressor()
    return (compressor.compress,
            lambda data, size: decompressor.decompress(data, max_output_size=size))


_CODECS = {"lz4": _lz4, "zstd": _zstd}


def codec_of(layout: Layout) -> RowCodec | None:
    """None: no column is compressed, and rows travel packed."""
    return RowCodec(layout) if any(column.compression for column in layout) else None


class RowCodec:
    """Packed rows to encoded ones and back.  Thread-safe.

    An encoded row: header, the columns that are not compressed without gaps, for each that is a
    uint32 with the size of its bytes, these bytes (as they are in a packed row where they are as
    many), and zeros up to a multiple of 8.
    """

    def __init__(self, layout: Layout):
        """TroupeError: a package is missing."""
        self.stride_bytes = layout.stride_bytes
        fields = layout.dtype.fields or {}
        self._plain = [(0, HEADER_BYTES)]
        self._compressed: list[tuple[Column, int, int]] = []
        for column in layout:
            dtype, begin = fields[column.name][:2]
            if column.compression:
                self._compressed.append((column, begin, begin + dtype.itemsize))
            else:
                self._plain.append((begin, begin + dtype.itemsize))
        self._sizes = struct.Struct(f"<{len(self._compressed)}I")
        self._sizes_at = sum(end - begin for begin, end in self._plain)
        self._bytes_at = self._sizes_at + self._sizes.size
        largest = self._bytes_at + sum(end - begin for _, begin, end in self._compressed)
        # Of an encoded row.
        self.max_row_bytes = -(-largest // _MULTIPLE) * _MULTIPLE
        self._local = threading.local()  # Zstandard's objects are for one thread
        self._methods()

    def _methods(self) -> list[tuple[_Compress, _Decompress]]:
        """Of the compressed columns."""
        found = getattr(self._local, "methods", None)
        if found is None:
            found = self._local.methods = [_methods_of(column) for column, _, _ in self._compressed]
        return found

    def encode(self, packed: Any) -> bytes:
        """Of whole packed rows."""
        view = memoryview(packed).cast("B")
        parts: list[Any] = []
        methods = self._methods()
        for row in range(0, len(view), self.stride_bytes):
            parts += [view[row + begin:row + end] for begin, end in self._plain]
            columns = []
            for (_, begin, end), (compress, _) in zip(self._compressed, methods):
                column = view[row + begin:row + end]
                data = compress(column)
                columns.append(data if len(data) < end - begin else column)
            sizes = [len(data) for data in columns]
            parts.append(self._sizes.pack(*sizes))
            parts += columns
            parts.append(bytes(-(self._bytes_at + sum(sizes)) % _MULTIPLE))
        return b"".join(parts)

    def decode(self, encoded: Any, num_rows: int | None = None) -> bytearray:
        """Packed rows; TroupeError: these are not `num_rows` rows, or not any number of them."""
        view = memoryview(encoded).cast("B")
        packed = bytearray() if num_rows is None else bytearray(num_rows * self.stride_bytes)
        at = 0
        for row in itertools.count() if num_rows is None else range(num_rows):
            if num_rows is None:
                if at == len(view):
                    break
                packed += bytes(self.stride_bytes)
            try:
                at = self._decode_row(view, at, packed, row * self.stride_bytes)
            except TroupeError:
                raise
            except Exception as error:
                raise TroupeError(f"row {row} in {len(view)} bytes is none: {error}") from error
        if at != len(view):
            raise TroupeError(f"{len(view) - at} bytes too many for {num_rows} rows")
        return packed

    def _decode_row(self, view: memoryview, at: int, packed: bytearray, to: int) -> int:
        """Returns where the next row begins."""
        plain = at
        for begin, end in self._plain:
            packed[to + begin:to + end] = _slice(view, plain, end - begin)
            plain += end - begin
        sizes = self._sizes.unpack_from(view, at + self._sizes_at)
        data_at = at + self._bytes_at
        for (column, begin, end), size, (_, decompress) in zip(self._compressed, sizes,
                                                               self._methods()):
            data = _slice(view, data_at, size)
            if not 1 <= size <= end - begin:
                raise TroupeError(f"{size} bytes of column {column.name!r}, which has "
                                  f"{end - begin}")
            if size < end - begin:
                data = decompress(data, end - begin)
            if len(data) != end - begin:
                raise TroupeError(f"{size} bytes of column {column.name!r} are not {end - begin} "
                                  f"bytes compressed with {column.compression}")
            packed[to + begin:to + end] = data
            data_at += size
        after = data_at - at
        after = at - (-after // _MULTIPLE) * _MULTIPLE
        _slice(view, data_at, after - data_at)
        return after


def _slice(view: memoryview, begin: int, size: int) -> memoryview:
    if begin + size > len(view):
        raise TroupeError(f"cut off after {len(view)} bytes")
    return view[begin:begin + size]


def _methods_of(column: Column) -> tuple[_Compress, _Decompress]:
    assert column.compression is not None
    try:
        return _CODECS[column.compression](column.compression_level)
    except ImportError as error:
        raise TroupeError(f"column {column.name!r} is compressed with {column.compression}: "
                          f"pip install 'troupe[compression]' ({error})") from None
