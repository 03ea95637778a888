"""What the tests of the Python package share: shards, certificates, rows that can be told apart."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD_DIR = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path.insert(0, str(BUILD_DIR / "python"))

import numpy as np  # noqa: E402
import troupe  # noqa: E402

TIMEOUT = 60  # seconds, for anything that has to happen
CONFIG = """
run: "tests"
tables {
  name: "replay" capacity_rows: %d selector: %s
  window { %s }
  rate_limiter { min_size: 1 samples_per_insert: 0 }
}
"""
# Of the table that the learner samples the algorithm decides which windows it has.
NOT_LEARNED = 'tables { name: "learned" } learner { table: "learned" }'
LAYOUT = troupe.Layout(
    troupe.Column("observation", np.float32, (3,)),
    troupe.Column("action", np.float32, (2,), low=-1, high=1), troupe.Column("reward"),
    troupe.Column("number", np.int64), environment="Test-v0")


class ClusterTest(unittest.TestCase):
    """Shards end with the test."""

    def folder(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe_python_")
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    def shard(self, capacity_rows=1_000_000, selector="UNIFORM", window=None, **arguments):
        """A LocalShard; `window`: as in the configuration, of length 2 if it is not given."""
        config = CONFIG % (capacity_rows, selector, window or "length: 2")
        config += NOT_LEARNED if window else ""
        arguments.setdefault("data_dir", self.folder())
        shard = troupe.LocalShard(config, build_dir=BUILD_DIR, **arguments)
        self.addCleanup(shard.close)
        return shard

    def certificates(self):
        """deploy/certs's folder, of an authority of its own."""
        folder = self.folder() / "certs"
        self.renew(folder)
        return folder

    def renew(self, certificates):
        """Makes new ones of the same authority, if there is one."""
        subprocess.run([ROOT / "deploy" / "certs", certificates], check=True, capture_output=True)

    def client(self, *shards, **arguments):
        return troupe.Client([shard.address for shard in shards], "tests", **arguments)

    def enter(self, context):
        """Closed behind the test."""
        self.addCleanup(getattr(context, "stop", None) or context.close)
        return context


def episode(first, steps):
    """Arguments of add_episode; `number` of a step is first, first + 1, ..."""
    numbers = np.arange(first, first + steps)
    observations = np.arange(first, first + steps + 1)[:, None] + np.array([0, 0.25, 0.5])
    return {"observations": observations.astype(np.float32),
            "action": np.tanh(numbers[:, None] * [0.1, -0.1]).astype(np.float32),
            "reward": (numbers * 0.5).astype(np.float32), "number": numbers}


def all_rows(client, **arguments):
    """Every stored row as one structured array, with streams and numbers beside it."""
    with client.follow() as follower:
        parts = list(follower.until_caught_up(TIMEOUT, **arguments))
        parts = [(part.rows, part.streams, part.numbers) for part in parts]
        none = (follower.layout.empty(0), np.empty(0, np.uint64), np.empty(0, np.uint64))
    return tuple(np.concatenate(arrays) for arrays in zip(none, *parts))


def main():
    unittest.main()
