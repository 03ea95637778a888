#!/usr/bin/env python3
"""A shard with ten times the producers that saturate it, in a memory cgroup.

  overload_test.py BUILD_DIR [--minutes M]

Peak: the rate of 1, 2 or 4 connections, whichever is best, that append as fast as acks come, taken
again after each minute of overload, for machines change their pace; its median counts.  Overload:
ten times as many connections as that peak took, and at least 20, each with 4 MiB unacked, far more
than a shard reads ahead: they send until its flow control stops them.  Ten times the rows a
second cannot be offered on the machine that has to take them; the shard has half of its CPUs for
itself, so that the cost of many producers is not what is measured.  The cgroup's limit is what the
shard may need and 10 %: 1.05 x rows x their bytes and 60 MB (README.md), and
replay_server.message_budget_bytes, which is the default.  What must hold: the kernel kills nobody, at least 90 % of the
peak comes in (asked with --minutes only: a short run on a busy machine cannot tell), and the
shard ends well.  The record: overload_test.py build/release --minutes 10. Without the right to
make a cgroup the memory is watched instead.  Prints a JSON line; exit code 1: violated."""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

from fault_run import FaultRun, Violation

ROW_BYTES = 112
CAPACITY_ROWS = 1_000_000
MESSAGE_BUDGET_BYTES = 256 << 20
BUDGET_BYTES = int(1.05 * ROW_BYTES * CAPACITY_ROWS) + 60_000_000 + MESSAGE_BUDGET_BYTES
LIMIT_BYTES = int(1.1 * BUDGET_BYTES)
OVERLOAD_WINDOW_BYTES = 4 << 20
LEAST_CONNECTIONS = 20
LEAST_GOODPUT = 0.9  # of the peak
LEG_SECONDS = 60
PEAK_SECONDS = 5
WATCH_SECONDS = 0.05


class Cgroup:
    """A memory cgroup of version 1 or 2 with LIMIT_BYTES; `wrapper` starts a command in it."""

    def __init__(self):
        root = pathlib.Path("/sys/fs/cgroup")
        self._v2 = (root / "cgroup.controllers").exists()
        self._folder = (root if self._v2 else root / "memory") / f"troupe_overload_{os.getpid()}"
        self._folder.mkdir()
        limit = "memory.max" if self._v2 else "memory.limit_in_bytes"
        (self._folder / limit).write_text(str(LIMIT_BYTES))
        procs = self._folder / "cgroup.procs"
        self.wrapper = ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh"]

    def kills(self):
        name = "memory.events" if self._v2 else "memory.oom_control"
        words = (self._folder / name).read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def remove(self):
        self._folder.rmdir()


@contextlib.contextmanager
def memory_cgroup():
    """None without the right to make one."""
    try:
        cgroup = Cgroup()
    except OSError as error:
        print(f"overload_test: no cgroup: {error}", file=sys.stderr)
        yield None
        return
    try:
        yield cgroup
    finally:
        for _ in range(100):  # until the kernel has buried its processes
            with contextlib.suppress(OSError):
                cgroup.remove()
                break
            time.sleep(WATCH_SECONDS)


class Watch(threading.Thread):
    """Follows the shard's own memory."""

    def __init__(self, shard):
        super().__init__(daemon=True)
        self._shard = shard
        self.most_bytes = 0
        self.start()

    def run(self):
        while self._shard.running():
            with contextlib.suppress(OSError, TypeError):
                self.most_bytes = max(self.most_bytes, self._shard.resident_bytes())
            time.sleep(WATCH_SECONDS)


def on_half_of_the_cpus(half):
    """What a command is started with to run on the first (0) or the other (1) half of the CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return []
    middle = len(cpus) // 2
    return ["taskset", "-c", ",".join(map(str, (cpus[:middle], cpus[middle:])[half]))]


def append(run, shard, connections, seconds, **flags):
    """Rows a second."""
    command = [*on_half_of_the_cpus(1), run.bin / "troupe-replay-load", "--mode=append",
               f"--target={shard.address}",
               f"--clients={connections}", f"--seconds={seconds}", "--run=chaos",
               *[f"--{name}={value}" for name, value in flags.items()]]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          timeout=seconds + 120)
    if not shard.running():
        raise Violation(f"the shard is dead ({shard.process.returncode}):\n"
                        f"{shard.log_text()[-2000:]}")
    if done.returncode != 0:
        raise Violation(f"{connections} connections: {done.stderr[-2000:]}")
    return json.loads(done.stdout)["rows_per_second"]


def overload(run, cgroup, seconds):
    shard = run.shard([f"tables.capacity_rows={CAPACITY_ROWS}",
                       f"replay_server.message_budget_bytes={MESSAGE_BUDGET_BYTES}"],
                      wrapper=[*(cgroup.wrapper if cgroup else ()), *on_half_of_the_cpus(0)]
                      ).await_serving()
    watch = Watch(shard)
    peak_seconds = min(seconds, PEAK_SECONDS)
    rates = {n: append(run, shard, n, peak_seconds) for n in (1, 2, 4)}
    calm_bytes = watch.most_bytes
    best = max(rates, key=rates.get)
    connections = max(LEAST_CONNECTIONS, 10 * best)
    peaks, goodputs = [rates[best]], []
    legs = max(1, round(seconds / LEG_SECONDS))
    for _ in range(legs):
        goodputs.append(append(run, shard, connections, seconds / legs,
                               window_bytes=OVERLOAD_WINDOW_BYTES))
        peaks.append(append(run, shard, best, peak_seconds))
    peak, goodput = statistics.median(peaks), statistics.mean(goodputs)
    shard.end()
    return {"peak_rows_per_second": round(peak), "peak_connections": best,
            "overload_connections": connections, "goodput_rows_per_second": round(goodput),
            "share_of_peak": round(goodput / peak, 3),
            "peaks": [round(rate) for rate in peaks],
            "goodputs": [round(rate) for rate in goodputs], "limit_bytes": LIMIT_BYTES,
            "calm_anonymous_bytes": calm_bytes, "most_anonymous_bytes": watch.most_bytes,
            "kills": cgroup.kills() if cgroup else 0, "overload_seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir", metavar="BUILD_DIR")
    parser.add_argument("--minutes", type=float, help="not given: 2 seconds")
    args = parser.parse_args()
    try:
        with memory_cgroup() as cgroup, FaultRun(args.build_dir) as run:
            figures = overload(run, cgroup, 60 * args.minutes if args.minutes else 2)
        if figures["kills"]:
            raise Violation(f"killed for its memory: {figures}")
        own_bytes = MESSAGE_BUDGET_BYTES + 60_000_000
        if figures["most_anonymous_bytes"] > 1.1 * own_bytes:
            raise Violation(f"more than {own_bytes} bytes of its own: {figures}")
        if args.minutes and figures["share_of_peak"] < LEAST_GOODPUT:
            raise Violation(f"goodput fell: {figures}")
    except Violation as violation:
        print(f"overload_test: {violation}", file=sys.stderr)
        return 1
    print(json.dumps({**figures, "violations": 0}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
