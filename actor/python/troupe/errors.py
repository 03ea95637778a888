"""What goes wrong.  Waiting in vain raises the built-in TimeoutError."""

import grpc

_PERMANENT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class TroupeError(Exception):
    """Anything that this package reports."""


class Refused(TroupeError):
    """A shard refuses for good: another run or layout, a missing table, a missing right.

    The same call would fail again for the same reason.  `code` is gRPC's.
    """

    def __init__(self, message: str, code: grpc.StatusCode):
        super().__init__(message)
        self.code = code


class LayoutError(TroupeError, ValueError):
    """A layout that cannot be, or values that do not fit one; names the column."""


class Closed(TroupeError):
    """The object was closed."""


def is_permanent(code: grpc.StatusCode) -> bool:
    """Would the same call to the same shard fail again for the same reason?"""
    return code in _PERMANENT


def describe(error: grpc.RpcError, what: str) -> str:
    """A line for people: what was tried, and how it ended."""
    return f"{what}: {error.code().name}: {error.details()}"  # type: ignore[attr-defined]
