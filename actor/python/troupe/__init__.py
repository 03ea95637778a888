"""Troupe from Python: rows in, windows out, and the policies that were learned of them.

    Client        a run's shards; makes the others
    Writer        rows of one's own loop into a replay table
    Sampler       windows of a table as NumPy arrays
"""

from troupe.client import Client, Table
from troupe.errors import Closed, LayoutError, Refused, TroupeError
from troupe.layout import Column, Layout
from troupe.sampler import Counts, Sampler
from troupe.windows import Windows
from troupe.writer import Stream, Writer, WriterOptions, WriterStats

__all__ = ["Client", "Closed", "Column", "Counts", "Layout", "LayoutError", "Refused", "Sampler",
           "Stream", "Table", "TroupeError", "Windows", "Writer", "WriterOptions", "WriterStats"]
