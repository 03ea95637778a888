"""What rows are made of: the Python side of common/layout.h, which is the rule.

A packed row is a header of 16 bytes and the columns.  `Layout.dtype` is that as a structured NumPy
type, so that rows are packed and read without touching them one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from troupe.errors import LayoutError
from troupe.proto import experience_pb2

TERMINATED = 1
TRUNCATED = 2
# The episode goes on in the next row, with the same observation: the row closes an unroll.
CUT = 4
FINAL = TERMINATED | TRUNCATED | CUT

# Fields of the header; no column can have these names.
VERSION_FIELD = "\0policy_version"
FLAGS_FIELD = "\0flags"
PRIORITY_FIELD = "\0priority"
HEADER_BYTES = 16

_DTYPES: dict[int, np.dtype] = {
    experience_pb2.FLOAT32: np.dtype("<f4"),
    experience_pb2.FLOAT64: np.dtype("<f8"),
    experience_pb2.INT32: np.dtype("<i4"),
    experience_pb2.INT64: np.dtype("<i8"),
    experience_pb2.UINT8: np.dtype("u1"),
}
_COMPRESSIONS = {experience_pb2.LZ4: "lz4", experience_pb2.ZSTD: "zstd"}
_PROTO_COMPRESSIONS = {name: number for number, name in _COMPRESSIONS.items()}
_PROTO_DTYPES = {dtype: number for number, dtype in _DTYPES.items()}
_MAX_AXIS = 1 << 24
_MAX_AXES = 8
_MAX_COLUMNS = 256
_MAX_ROW_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Column:
    """One named column.

    The algorithms know "observation" (or several, "observation.NAME"), "action", "reward" and
    "log_prob"; other names are stored and handed out alike.
    """

    name: str
    # float32, float64, int32, int64 or uint8.
    dtype: npt.DTypeLike = np.float32
    shape: tuple[int, ...] = ()
    # Closed bounds, a number or an array of `shape`; of an action what the policy's (-1, 1) is
    # mapped to.  Not given: none.
    low: npt.ArrayLike | None = None
    high: npt.ArrayLike | None = None
    # Of a discrete action: the number of choices, or one for each element.
    num_choices: int | Sequence[int] | None = None
    # "lz4" or "zstd", by which the values travel and are stored, row by row: for images, above all.
    # Needs the packages of troupe[compression].
    compression: str | None = None
    # Of "zstd", 1 to 19.  Only a writer's counts.
    compression_level: int = dataclasses.field(default=1, compare=False)

    def __post_init__(self) -> None:
        name = self.name
        if not 1 <= len(name.encode()) <= 64 or "\0" in name:
            raise LayoutError(f"column {name!r}: a name has 1 to 64 bytes, none of them zero")
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if dtype not in _PROTO_DTYPES:
            known = ", ".join(str(known) for known in _PROTO_DTYPES)
            raise LayoutError(f"column {name!r}: dtype {np.dtype(self.dtype)} is none of {known}")
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", tuple(int(axis) for axis in np.atleast_1d(self.shape)))
        if len(self.shape) > _MAX_AXES or not all(1 <= axis <= _MAX_AXIS for axis in self.shape):
            raise LayoutError(f"column {name!r}: shape {self.shape}: at most {_MAX_AXES} axes of 1 "
                              f"to {_MAX_AXIS}")
        if (self.low is None) != (self.high is None):
            raise LayoutError(f"column {name!r}: bounds on one side only")
        for side in ("low", "high"):
            if getattr(self, side) is not None:
                object.__setattr__(self, side, self._elements(side, np.float64))
        low: Any = self.low
        high: Any = self.high
        if low is not None and not np.all(np.less_equal(low, high)):
            raise LayoutError(f"column {name!r}: a lower bound is above its upper bound")
        if self.compression is not None and self.compression not in _PROTO_COMPRESSIONS:
            raise LayoutError(f"column {name!r}: compression {self.compression!r} is none of "
                              f"{', '.join(_PROTO_COMPRESSIONS)}")
        if not 1 <= self.compression_level <= 19:
            raise LayoutError(f"column {name!r}: compression_level {self.compression_level} is not "
                              "1 to 19")
        if self.num_choices is not None:
            object.__setattr__(self, "num_choices", self._elements("num_choices", np.uint32))

    def _elements(self, field: str, dtype: npt.DTypeLike) -> tuple:
        """The field's values, one for each element in C order."""
        try:
            values = np.broadcast_to(np.asarray(getattr(self, field), dtype), self.shape)
        except ValueError as error:
            raise LayoutError(f"column {self.name!r}: {field}: {error}") from None
        return tuple(values.reshape(-1).tolist())

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def to_proto(self) -> experience_pb2.Column:
        """The message of proto/experience.proto."""
        return experience_pb2.Column(
            name=self.name, dtype=cast(Any, _PROTO_DTYPES[np.dtype(self.dtype)]), shape=self.shape,
            low=cast(Any, self.low), high=cast(Any, self.high),
            num_choices=cast(Any, self.num_choices),
            compression=cast(Any, _PROTO_COMPRESSIONS.get(self.compression or "", 0)))

    @classmethod
    def from_proto(cls, column: experience_pb2.Column) -> Column:
        """LayoutError: the message is none of a column."""
        if column.dtype not in _DTYPES:
            raise LayoutError(f"column {column.name!r}: unknown dtype {column.dtype}")
        if column.compression and column.compression not in _COMPRESSIONS:
            raise LayoutError(f"column {column.name!r}: unknown compression {column.compression}")
        shape = tuple(column.shape)
        low, high, choices = (
            cast(Any, np.reshape(list(values), shape) if len(values) else None)
            for values in (column.low, column.high, column.num_choices))
        return cls(column.name, _DTYPES[column.dtype], shape, low, high, choices,
                   _COMPRESSIONS.get(column.compression))

    def __str__(self) -> str:
        axes = ",".join(str(axis) for axis in self.shape)
        compression = f" {self.compression}" if self.compression else ""
        return f"'{self.name}' {np.dtype(self.dtype)}[{axes}]{compression}"


class Layout:
    """The columns of an experiment and how rows of them are packed.  Immutable."""

    def __init__(self, *columns: Column, environment: str = ""):
        """`environment`: its name, for people and for checkpoints."""
        if not 1 <= len(columns) <= _MAX_COLUMNS:
            raise LayoutError(f"a layout has 1 to {_MAX_COLUMNS} columns, not {len(columns)}")
        names = [column.name for column in columns]
        for name in names:
            if names.count(name) > 1:
                raise LayoutError(f"column {name!r}: there twice")
        self.columns: tuple[Column, ...] = columns
        self.environment = environment
        self.dtype: np.dtype = _packed(columns)

    @property
    def stride_bytes(self) -> int:
        """Size of a packed row."""
        return self.dtype.itemsize

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns, in their order."""
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise LayoutError(f"no column {name!r}; there are: {', '.join(self.names)}")

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.columns == other.columns

    def __hash__(self) -> int:
        return hash(self.columns)

    def __repr__(self) -> str:
        return f"Layout({', '.join(str(column) for column in self.columns)})"

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Of the columns that a policy sees."""
        return tuple(name for name in self.names
                     if name == "observation" or name.startswith("observation."))

    def to_proto(self) -> experience_pb2.Layout:
        """The message of proto/experience.proto."""
        return experience_pb2.Layout(columns=[column.to_proto() for column in self.columns],
                                     environment=self.environment)

    @classmethod
    def from_proto(cls, layout: experience_pb2.Layout) -> Layout:
        """LayoutError names the column that cannot be."""
        return cls(*(Column.from_proto(column) for column in layout.columns),
                   environment=layout.environment)

    @classmethod
    def of_spaces(cls, observation: Any, action: Any, *, environment: str = "",
                  extra: Sequence[Column] = ()) -> Layout:
        """Of Gymnasium's spaces: Box (or Dict of Boxes) observations; Box, Discrete, MultiDiscrete.

        Observations of floats become float32, as algorithms want them, uint8 stays.
        """
        columns = [_observation_column(name, space) for name, space in _observations(observation)]
        columns.append(_action_column(action))
        columns.append(Column("reward", np.float32))
        return cls(*columns, *extra, environment=environment)

    def empty(self, num_rows: int) -> np.ndarray:
        """`num_rows` packed rows of zeros."""
        return np.zeros(num_rows, self.dtype)

    def pack(self, columns: Mapping[str, npt.ArrayLike], *, flags: npt.ArrayLike = 0,
             policy_version: npt.ArrayLike = 0, priority: npt.ArrayLike = 0) -> np.ndarray:
        """Rows of arrays [rows, *shape]; columns that are not given are zero.

        LayoutError names the column whose shape or dtype does not fit, or that there is none of.
        """
        if not columns:
            raise LayoutError("no columns to pack")
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        first = next(iter(arrays.values()))
        rows = self.empty(first.shape[0] if first.ndim else 0)
        for name, values in arrays.items():
            self.check(name, values, rows.shape)
            rows[name] = values
        rows[FLAGS_FIELD] = flags
        rows[VERSION_FIELD] = policy_version
        rows[PRIORITY_FIELD] = priority
        return rows

    def check(self, name: str, values: np.ndarray, leading: tuple[int, ...] = ()) -> None:
        """LayoutError unless `values` are [*leading, *shape] of a dtype that the column takes."""
        column = self[name]
        if values.shape != leading + column.shape:
            raise LayoutError(f"column {name!r}: values of shape {list(values.shape)} where "
                              f"{list(leading + column.shape)} is due")
        if not np.can_cast(values.dtype, np.dtype(column.dtype), "same_kind"):
            raise LayoutError(f"column {name!r}: {values.dtype} is no {np.dtype(column.dtype)}")

    def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Views of the columns of packed rows, by name."""
        return {name: rows[name] for name in self.names}


def _packed(columns: Sequence[Column]) -> np.dtype:
    """Each column at the next multiple of its element's size, the whole rounded up to 8 bytes."""
    names = [VERSION_FIELD, FLAGS_FIELD, PRIORITY_FIELD]
    formats: list[Any] = ["<u8", "<u4", "<f4"]
    offsets = [0, 8, 12]
    end = HEADER_BYTES
    for column in columns:
        dtype = np.dtype(column.dtype)
        offset = -(-end // dtype.itemsize) * dtype.itemsize
        end = offset + dtype.itemsize * column.size
        if end > _MAX_ROW_BYTES:
            raise LayoutError(f"column {column.name!r} ends a row of more than {_MAX_ROW_BYTES} "
                              "bytes")
        names.append(column.name)
        formats.append((dtype, column.shape))
        offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets,
                     "itemsize": -(-end // 8) * 8})


def _observations(space: Any) -> list[tuple[str, Any]]:
    """Names of columns and their spaces, parts of Dict spaces joined by dots."""
    def parts(name: str, part: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(part, "spaces") and isinstance(part.spaces, Mapping):
            for key, inner in part.spaces.items():
                yield from parts(f"{name}.{key}", inner)
        else:
            yield name, part
    return list(parts("observation", space))


def _observation_column(name: str, space: Any) -> Column:
    if not hasattr(space, "low") or space.shape is None:
        raise LayoutError(f"column {name!r}: {space} is no Box")
    dtype = np.dtype(space.dtype)
    return Column(name, dtype if dtype == np.uint8 else np.float32, space.shape)


def _action_column(space: Any) -> Column:
    if hasattr(space, "nvec"):
        return Column("action", np.int32, space.nvec.shape, num_choices=space.nvec)
    if hasattr(space, "n"):
        return Column("action", np.int32, (1,), num_choices=int(space.n))
    if hasattr(space, "low") and np.issubdtype(space.dtype, np.floating):
        return Column("action", np.float32, space.shape, low=space.low, high=space.high)
    raise LayoutError(f"column 'action': {space} is neither Box of floats, Discrete nor "
                      "MultiDiscrete")
