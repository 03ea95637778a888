"""Many actors on one shard: light clients, each with one stream on a connection of its own, that
append as fast as they are acked.

    many_streams_bench.py --build_dir build/release [--streams 500] [--seconds 10]

Prints lines of bench.jsonl: rows a second of all, rows of the stream that got the most over rows of
the one that got the least, and what a stream costs the shard in memory (not counting the rows).
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "replay"))
from shard import Shard  # noqa: E402

ROW_BYTES = 112
ROWS_IN_MESSAGE = 16
MESSAGES_IN_FLIGHT = 4


def own_memory_bytes(pid):
    """Resident memory without that of mapped files, where the rows are."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


class Peak:
    """The most memory that a process had while this was entered."""

    def __init__(self, pid):
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = own_memory_bytes(pid)

    def _watch(self):
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, own_memory_bytes(self._pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def measure(shard, streams, seconds):
    """The load's own report, with the memory that it took."""
    message_bytes = ROW_BYTES * ROWS_IN_MESSAGE
    before = own_memory_bytes(shard.pid)
    with Peak(shard.pid) as peak:
        report = shard.load("append", append_clients=streams, message_bytes=message_bytes,
                            window_bytes=MESSAGES_IN_FLIGHT * message_bytes,
                            warm_up_seconds=3, seconds=seconds)
    report["bytes_per_stream"] = (peak.bytes - before) / streams
    return report


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return f"{os.cpu_count()} x {model}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build_dir", required=True)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="troupe_many_streams_") as folder:
        with Shard(pathlib.Path(args.build_dir).resolve() / "bin", folder) as shard:
            found = measure(shard, args.streams, args.seconds)
    least = found["least_rows_of_a_client"]
    values = [("rows", found["rows_per_second"], "rows/s"),
              ("fairness", found["most_rows_of_a_client"] / least if least else float("inf"),
               "most/least rows of a stream"),
              ("ack_p99", found["ack_p99_ms"], "ms"),
              ("memory", found["bytes_per_stream"], "bytes/stream")]
    for what, value, unit in values:
        print(json.dumps({"name": "system.many_streams", "case": f"half_cheetah/{args.streams}/{what}",
                          "value": value, "unit": unit,
                          "machine": machine()}))


if __name__ == "__main__":
    main()
