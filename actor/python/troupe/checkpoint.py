"""Checkpoints of a run, as the learner writes and reads them (common/checkpoint.h).

Each is a folder named after its updates (000000005000), with its files and, written last,
checkpoint.json: counters, sizes and digests.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .crc32c import crc32c

MARKER = "checkpoint.json"
FORMAT = "troupe.checkpoint.1"
# The newest policy that was published by then; there is none before the first one.
POLICY_FILE = "policy.safetensors"
# What the learner resumes from.
MODEL_FILE = "model.safetensors"
_NAME_DIGITS = 12


class BrokenCheckpoint(ValueError):
    """A checkpoint that is there and cannot be trusted; says why."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a run."""

    updates: int
    counters: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    path: pathlib.Path | None = None

    def config(self) -> dict[str, Any]:
        """The run's configuration (config.json); empty if it is not there."""
        return json.loads(self.files.get("config.json", b"{}"))


def read_one(folder: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in this very folder.  BrokenCheckpoint if sizes or digests do not match."""
    folder = pathlib.Path(folder)
    if not (folder / MARKER).is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it has no {MARKER}")
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        if marker["format"] != FORMAT:
            raise BrokenCheckpoint(f"{folder / MARKER}: format '{marker['format']}', not {FORMAT}")
        updates = _whole("updates", marker["updates"], minimum=0)
        counters = {name: _whole(name, value) for name, value in marker["counters"].items()}
        files = {name: _read_file(folder, name, entry) for name, entry in marker["files"].items()}
    except BrokenCheckpoint:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise BrokenCheckpoint(f"{folder / MARKER}: {error!r}") from error
    return Checkpoint(updates, counters, files, folder)


def find_all(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Folders of checkpoints in `directory`, the newest first."""
    directory = pathlib.Path(directory)
    names = os.listdir(directory) if directory.is_dir() else []
    good = [n for n in names if len(n) >= _NAME_DIGITS and n.isascii() and n.isdigit()]
    return [directory / name for name in sorted(good, key=lambda n: (len(n), n), reverse=True)]


def read_newest(directory: str | os.PathLike[str]) -> Checkpoint:
    """The newest one whose files match their digests; older ones stand in for broken ones."""
    faults = []
    for folder in find_all(directory):
        try:
            return read_one(folder)
        except (BrokenCheckpoint, FileNotFoundError) as error:
            faults.append(str(error))
    if not faults:
        raise FileNotFoundError(f"no checkpoint in {directory}")
    raise BrokenCheckpoint(f"every checkpoint is broken: {'; '.join(faults)}")


def find(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint that is meant by `path`: its folder, the folder of several, or a run's."""
    path = pathlib.Path(path)
    if (path / MARKER).is_file():
        return read_one(path)
    inner = path / "checkpoints"
    return read_newest(inner if inner.is_dir() else path)


def write(directory: str | os.PathLike[str], checkpoint: Checkpoint) -> pathlib.Path:
    """Writes it below `directory`, whole and flushed to disk, or not at all.

    One process at a time may write a directory.  Returns the checkpoint's folder.
    """
    directory = pathlib.Path(directory)
    name = f"{_whole('updates', checkpoint.updates, minimum=0):0{_NAME_DIGITS}d}"
    made, aside = directory / f".new-{name}", directory / f".old-{name}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        for file, contents in checkpoint.files.items():
            if "/" in file or file in ("", ".", "..", MARKER):
                raise ValueError(f"'{file}' is no name for a file of a checkpoint")
            _write_file(made / file, contents)
        _write_file(made / MARKER, _marker(checkpoint))
        _flush(made)
        _replace(made, directory / name, aside)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return directory / name


def _whole(name: str, value: object, minimum: int = -(1 << 63)) -> int:
    if type(value) is not int or not minimum <= value < 1 << 63:
        raise BrokenCheckpoint(f"'{name}' is no whole number of at least {minimum}")
    return value


def _read_file(folder: pathlib.Path, name: str, entry: Mapping[str, Any]) -> bytes:
    if "/" in name or name in ("", ".", ".."):
        raise BrokenCheckpoint(f"'{name}' is no file name")
    contents = (folder / name).read_bytes()
    if entry["size"] != len(contents) or entry["crc32c"] != crc32c(contents):
        raise BrokenCheckpoint(f"the digest of {folder / name} ({len(contents)} bytes) does not "
                               "match")
    return contents


def _marker(checkpoint: Checkpoint) -> bytes:
    files = {name: {"size": len(contents), "crc32c": crc32c(contents)}
             for name, contents in checkpoint.files.items()}
    marker = {"format": FORMAT, "updates": checkpoint.updates,
              "counters": dict(checkpoint.counters), "files": files}
    return (json.dumps(marker, indent=2, sort_keys=True) + "\n").encode()


def _write_file(path: pathlib.Path, contents: bytes) -> None:
    with open(path, "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(made: pathlib.Path, folder: pathlib.Path, aside: pathlib.Path) -> None:
    """Puts `made` in the place of `folder`, which a checkpoint of the same updates may hold."""
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    made.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
    _flush(folder.parent)
