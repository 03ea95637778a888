"""Brings data sets of others into a table that gives up no row, for learners to start from.

    python -m troupe.data minari  FOLDER --shards 127.0.0.1:7000 --run my_run --table demonstrations
    python -m troupe.data lerobot FOLDER --check

Everything is read and checked, counts, shapes, types and ranges, before the first row is sent; the
report is a line of JSON.  Needs the role "operator", and h5py or pyarrow, which
pip install './actor/python[data]' brings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from troupe.client import Client
from troupe.datasets import Choice, DataError, Dataset, Episode
from troupe.errors import TroupeError
from troupe.follow_position import ROWS_IN_BLOCK
from troupe.layout import FLAGS_FIELD, TERMINATED, TRUNCATED, Column, Layout
from troupe.lerobot_data import LeRobotDataset
from troupe.minari_data import MinariDataset
from troupe.writer_state import WriterOptions

_FORMATS: dict[str, Callable[[pathlib.Path, Choice], Dataset]] = {
    "minari": MinariDataset, "lerobot": LeRobotDataset}
# By how much of its range an action may be outside of its bounds: float32's rounding.
_ROUNDING = 1e-6


class Packer:
    """Makes rows of a data set's episodes."""

    def __init__(self, dataset: Dataset, rename: dict[str, str], layout: Layout | None, clip: bool):
        """`layout`: of the table, if it has one.  DataError names the column that does not fit."""
        for name in rename:
            if name not in dataset.layout:
                raise DataError(f"column '{name}' is not in the data set; there are: "
                                f"{', '.join(dataset.layout.names)}")
        self._names = {name: rename.get(name, name) for name in dataset.layout.names}
        own = Layout(*(dataclasses.replace(column, name=self._names[column.name])
                       for column in dataset.layout), environment=dataset.layout.environment)
        self.layout = layout or own
        self._clip = clip
        self.ranges = {name: [float("inf"), float("-inf")] for name in self.layout.names}
        for column in self.layout:
            if column.name not in own:
                raise DataError(f"column {column} of the table is not in the data set, which has "
                                f"{', '.join(str(each) for each in own)}")
        for column in own:
            if column.name not in self.layout:
                raise DataError(f"column {column} of the data set is not in the table; --skip "
                                f"{column.name} leaves it out, --rename {column.name}=NAME gives "
                                "it another name")
            if self.layout[column.name].shape != column.shape:
                raise DataError(f"column {column} of the data set is {self.layout[column.name]} in "
                                "the table")

    def rows(self, episode: Episode) -> np.ndarray:
        """Packed; DataError names the column and the value that does not fit."""
        steps = episode.num_steps
        rows = self.layout.empty(steps + 1)
        for name, values in episode.observations.items():
            column = self.layout[self._names[name]]
            rows[column.name] = self._fit(column, values, steps + 1, episode.index)
        for name, values in episode.columns.items():
            column = self.layout[self._names[name]]
            rows[column.name][:-1] = self._fit(column, values, steps, episode.index)
        # An episode that merely stops was cut off by whoever recorded it.
        truncated = episode.truncated or not episode.terminated
        rows[FLAGS_FIELD][-1] = TERMINATED * episode.terminated | TRUNCATED * truncated
        return rows

    def _fit(self, column: Column, values: np.ndarray, number: int, index: int) -> np.ndarray:
        what = f"column '{column.name}': episode {index}"
        if values.shape != (number, *column.shape):
            raise DataError(f"{what} has values of shape {list(values.shape)} where "
                            f"{[number, *column.shape]} is due")
        dtype = np.dtype(column.dtype)
        kinds = "fiub" if dtype.kind == "f" else "iu"
        if values.dtype.kind not in kinds:
            raise DataError(f"{what} has {values.dtype} where {dtype} is due")
        low, high = _limits(column)
        if self._clip and column.low is not None:
            values = np.clip(values, low, high)
        slack = _ROUNDING * (high - low) if dtype.kind == "f" and column.low is not None else 0.0
        with np.errstate(invalid="ignore"):
            wrong = np.argwhere(~((values >= low - slack) & (values <= high + slack)))
        if len(wrong):
            at = tuple(wrong[0])
            bounds = f"[{np.broadcast_to(low, values.shape)[at]:g}, " \
                     f"{np.broadcast_to(high, values.shape)[at]:g}]"
            more = "; --clip clips" if column.low is not None else ""
            raise DataError(f"{what}, step {at[0]}, element {[int(i) for i in at[1:]]} is "
                            f"{values[at]}, outside of {bounds}{more}")
        if values.size:
            seen = self.ranges[column.name]
            seen[0], seen[1] = min(seen[0], float(values.min())), max(seen[1], float(values.max()))
        return values


def _limits(column: Column) -> tuple[Any, Any]:
    """What values may be: within bounds, choices, or the type."""
    dtype = np.dtype(column.dtype)
    if column.num_choices is not None:
        return 0, np.reshape(np.array(column.num_choices, np.int64), column.shape) - 1
    if column.low is not None:
        return (np.reshape(np.asarray(column.low), column.shape),
                np.reshape(np.asarray(column.high), column.shape))
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return limits.min, limits.max


def check(dataset: Dataset, packer: Packer) -> dict[str, Any]:
    """Reads everything; DataError: something does not fit, or the counts are not as announced."""
    episodes = steps = terminated = 0
    for episode in dataset.episodes():
        packer.rows(episode)
        episodes += 1
        steps += episode.num_steps
        terminated += episode.terminated
    if episodes != dataset.num_episodes:
        raise DataError(f"{episodes} episodes where the data set says {dataset.num_episodes}")
    if isinstance(dataset, MinariDataset) and steps != dataset.num_steps:
        raise DataError(f"{steps} steps where the data set says {dataset.num_steps}")
    ranges = {name: seen for name, seen in packer.ranges.items() if seen[0] <= seen[1]}
    return {"episodes": episodes, "terminated": terminated, "steps": steps,
            "rows": steps + episodes, "environment": packer.layout.environment,
            "ranges": ranges, "left_out": list(dataset.left_out), "remarks": list(dataset.remarks)}


def table_layout(client: Client, table: str, rows: int, may_evict: bool) -> Layout | None:
    """Of the table, if it has one yet; DataError: it has no room, or gives up rows."""
    layout = None
    for shard, reply in zip(client.shards, client.describe()):
        if reply is None:
            raise DataError(f"{shard.name} does not answer")
        tables = {each.name: each for each in reply.tables}
        if table not in tables:
            raise DataError(f"{shard.name} has no table '{table}'; there are: {', '.join(tables)}")
        found = tables[table]
        if not found.never_evict and not may_evict:
            raise DataError(f"table '{table}' gives up its oldest rows when it is full; set its "
                            "never_evict, or say --may_evict")
        room = found.capacity_rows - found.rows
        # Each shard gets about its part, and a block that is not full.
        needed = rows // len(client.shards) + ROWS_IN_BLOCK
        if found.never_evict and needed > room:
            raise DataError(f"table '{table}' of {shard.name} has room for {room} rows, and "
                            f"{needed} are to come")
        if found.HasField("layout"):
            layout = Layout.from_proto(found.layout)
    return layout


def bring(dataset: Dataset, packer: Packer, client: Client, table: str) -> dict[str, int]:
    """Sends all rows, episodes to the shards in turn, and waits until they are acked."""
    options = WriterOptions(preload=True)
    with client.writer(packer.layout, table, num_streams=len(client.shards),
                       options=options) as writer:
        for number, episode in enumerate(dataset.episodes()):
            writer.streams[number % len(writer.streams)].append(packer.rows(episode))
        writer.flush()
        stats = writer.stats
    if stats.streams_renamed:
        raise TroupeError("a shard has lost rows that it had acked: the table is not whole")
    return {"rows_sent": stats.rows_appended, "rows_acked": stats.rows_acked}


def _pair(word: str) -> tuple[float, float]:
    low, high = (float(part) for part in word.split(","))
    return low, high


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m troupe.data",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("format", choices=sorted(_FORMATS))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="read and check, and send nothing")
    parser.add_argument("--shards", help="host:port of each, with commas between them")
    parser.add_argument("--run", default="troupe")
    parser.add_argument("--table", default="replay")
    parser.add_argument("--tls_dir", help="ca.pem, cert.pem and key.pem of the role operator")
    parser.add_argument("--insecure", action="store_true", help="plaintext in a trusted network")
    parser.add_argument("--may_evict", action="store_true", help="the table may be an ordinary one")
    parser.add_argument("--skip", action="append", default=[], metavar="COLUMN")
    parser.add_argument("--rename", action="append", default=[], metavar="COLUMN=NAME",
                        type=lambda word: tuple(word.split("=", 1)))
    parser.add_argument("--action_bounds", type=_pair, metavar="LOW,HIGH",
                        help="of LeRobot's actions; not given: the least and the most there are")
    parser.add_argument("--final_reward", type=float, metavar="X",
                        help="of the last step of each episode, where the data set has no rewards")
    parser.add_argument("--clip", action="store_true", help="actions to their bounds")
    args = parser.parse_args(arguments)
    if not args.check and not args.shards:
        parser.error("--shards or --check")
    if any(len(pair) != 2 for pair in args.rename):
        parser.error("--rename COLUMN=NAME")
    return args


def _main(args: argparse.Namespace) -> dict[str, Any]:
    low, high = args.action_bounds or (None, None)
    choice = Choice(tuple(args.skip), low, high, args.final_reward)
    dataset = _FORMATS[args.format](args.folder, choice)
    client, layout = None, None
    if not args.check:
        client = Client(args.shards.split(","), args.run, tls_dir=args.tls_dir,
                        insecure=args.insecure)
        layout = table_layout(client, args.table, dataset.num_steps + dataset.num_episodes,
                              args.may_evict)
    packer = Packer(dataset, dict(args.rename), layout, args.clip)
    report = check(dataset, packer)
    if client is not None:
        report.update(bring(dataset, packer, client, args.table))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1: the reason is on standard error, and no row was sent unless it says so."""
    args = _parse(arguments)
    try:
        print(json.dumps(_main(args)))
    except (TroupeError, TimeoutError, OSError, ValueError) as error:
        print(f"troupe.data: {args.folder}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
