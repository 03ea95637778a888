"""Troupe from Python: rows in, windows out, and the policies that were learned of them.

    Client        a run's shards; makes the next four
    Writer        rows of one's own loop into a replay table
    Sampler       windows of a table as NumPy arrays
    Follower      every row of a table, in order
    Subscriber    the newest policy as it is published
    Run           a training run on this machine
    LocalShard    a replay shard on this machine

actor/python/examples/tutorial.py shows all of them.
"""

from troupe.client import Client, Table
from troupe.errors import Closed, LayoutError, Refused, TroupeError
from troupe.follower import Follower, FollowStats
from troupe.layout import Column, Layout
from troupe.local import LocalShard
from troupe.run import Run
from troupe.sampler import Counts, Sampler
from troupe.snapshots import Snapshot, Subscriber
from troupe.windows import Rows, Windows
from troupe.stream import Stream
from troupe.writer import Writer
from troupe.writer_state import WriterOptions, WriterStats

__all__ = ["Client", "Closed", "Column", "Counts", "FollowStats", "Follower", "Layout",
           "LayoutError", "LocalShard", "Refused", "Rows", "Run", "Sampler", "Snapshot", "Stream",
           "Subscriber", "Table", "TroupeError", "Windows", "Writer", "WriterOptions",
           "WriterStats"]
