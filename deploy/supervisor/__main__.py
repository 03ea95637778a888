"""Runs one training cluster on this machine; deploy/up starts it.  Standard library only."""

import argparse
import ctypes
import os
import signal
import sys

from cluster import Cluster
from errors import Failure, WrongUse
from run_directory import RunDirectory


def parse_args():
    parser = argparse.ArgumentParser(prog="deploy/up", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--build_dir", required=True)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--no-prometheus", action="store_true")
    return parser.parse_args()


class Stop:
    """Becomes true at the first SIGINT or SIGTERM; `hard` at the second."""

    def __init__(self):
        self.requested = False
        self.hard = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number, frame):
        self.hard = self.requested
        self.requested = True

    def __bool__(self):
        return self.requested


def stop_with_parent():
    """Should deploy/up be killed, this process gets SIGTERM and stops everything in order."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def main():
    stop = Stop()
    stop_with_parent()
    args = parse_args()
    # For environments in Python: the interpreter that has what deploy/setup installed.
    os.environ.setdefault("TROUPE_PYTHON", sys.executable)
    try:
        with RunDirectory(args) as directory:
            return Cluster(args, directory, stop).run()
    except WrongUse as error:
        print(f"deploy/up: {error}", file=sys.stderr)
        return 2
    except (Failure, OSError) as error:
        print(f"deploy/up: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
