#!/usr/bin/env python3
"""A shard whose disk is full or broken.

  disk_faults_test.py BUILD_DIR [--long]

First the calls of a run that make, write, sync, allocate, map or rename a file are counted
(faults/disk_faults.cc).  Then each of them in turn fails, with ENOSPC and with EIO, while a writer
appends and a publisher publishes.  What must hold:
  a shard that cannot start says why, names the file, and exits with 1;
  ENOSPC while it serves: acks are withheld, and it goes on by itself when there is space again;
  EIO while it serves: it goes on without the snapshot's file, or ends with 1 and says why;
  started again with a sound disk it goes on, as do writer and publisher by themselves;
  no acked row is lost, doubled or altered.
Then pages of the mapped log go away under the shard: it says so, ends with 1, and recovers.
Without --long only the first call of each kind fails, once.  --long: also for three calls, on a log
that is recovered too, and at both ack levels.
Prints a JSON line; exit code 1: violated."""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import time

from fault_run import FaultRun, Violation, wait_for

ROWS = 300  # to be acked in each run
SNAPSHOTS = 2
CAPACITY_ROWS = 65536  # more than are ever made
TEXTS = {"ENOSPC": ("No space left", "bytes are free"), "EIO": ("Input/output error",)}
SMALL_CAPACITY_ROWS = 4096  # is soon written through
TMPFS_BYTES = 16 << 20
TRIALS_AT_ONCE = 4  # they mostly wait


class Trial:
    """One run in a directory of its own, with a fault or none."""

    def __init__(self, build_dir, ack, first_call=0, error="", count=1):
        self._run = FaultRun(build_dir)
        self._ack = ack
        self._error = error
        self.calls_file = self._run.dir / "calls"
        self._environment = {
            "LD_PRELOAD": str(self._run.bin.parent / "tests/chaos/libtroupe_disk_faults.so"),
            "TROUPE_FAULTS_DIR": str(self._run.data),
            "TROUPE_FAULTS_LOG": str(self.calls_file), "TROUPE_FAULTS_ERROR": error,
            "TROUPE_FAULTS_FIRST": str(first_call), "TROUPE_FAULTS_COUNT": str(count)}

    def __enter__(self):
        self._run.__enter__()
        return self

    def __exit__(self, *_):
        self._run.__exit__()

    def _start(self, faulty, port=0):
        return self._run.shard([f"tables.capacity_rows={CAPACITY_ROWS}",
                                f"replay_server.ack={self._ack}"],
                               environment=self._environment if faulty else None, port=port)

    def calls(self):
        """[(call, file name, failed)], in order."""
        if not self.calls_file.exists():
            return []
        lines = [line.split() for line in self.calls_file.read_text().splitlines()]
        return [(call, os.path.basename(path), bool(failed)) for _, call, path, *failed in lines]

    def prepare(self):
        """Leaves a log behind that the next shard recovers."""
        shard = self._start(False).await_serving()
        writer = self._run.peer("writer", shard.address, "earlier", key=2)
        writer.await_more(ROWS)
        self._run.end_writers([writer])
        shard.end()
        return writer

    def run(self, recovers=False):
        """Returns what the fault did: "refused to start", "ended" or "went on"."""
        writers = [self.prepare()] if recovers else []
        shard = self._start(True)
        wait_for(lambda: shard.serving() or not shard.running(), "the shard to serve or to end")
        if shard.serving():
            outcome = "went on"
        else:
            outcome = "refused to start"
            self._check_failure(shard)
            shard = self._start(False).await_serving()
        writer = self._run.peer("writer", shard.address, "writer", key=1)
        publisher = self._run.peer("publisher", shard.address, "publisher", per_second=20)
        for step, reached in (
                (lambda: None, lambda: writer.count() >= ROWS and publisher.count() >= SNAPSHOTS),
                (writer.process.terminate, lambda: not writer.running())):
            step()
            wait_for(lambda: reached() or not shard.running(), "writer and publisher to go on")
            if not shard.running():
                outcome = "ended"
                self._check_failure(shard)
                shard = self._start(False, shard.port).await_serving()
                wait_for(reached, "writer and publisher to go on on a sound disk")
        self._run.end_writers([writer])
        self._end(shard)
        self._run.check_rows([*writers, writer])
        self._end(self._start(False).await_serving())
        return outcome

    def _end(self, shard):
        """A fault in what is done at the end is one too."""
        shard.process.terminate()
        wait_for(lambda: not shard.running(), "the shard to end")
        if shard.process.returncode != 0:
            self._check_failure(shard)

    def _check_failure(self, shard):
        text = shard.log_text()
        if shard.process.returncode != 1 or str(self._run.data) not in text or not any(
                words in text for words in TEXTS.get(self._error, ())):
            raise Violation(f"the shard ended with {shard.process.returncode}:\n{text[-2000:]}")


def each_call_fails(build_dir, ack, counts, recovers, all_calls):
    """{error: {call: {outcome: how often}}}; not `all_calls`: only the first of each kind."""
    with Trial(build_dir, ack) as trial:
        trial.run(recovers)
        calls = trial.calls()
    trials = [(error, first, count) for error in TEXTS for first in range(1, len(calls) + 1)
              for count in counts if all_calls or calls[first - 1] not in calls[:first - 1]]

    def fail(trial_of):
        """(error, the call that failed, what the shard did), None if this run had fewer calls."""
        error, first, count = trial_of
        with Trial(build_dir, ack, first, error, count) as trial:
            try:
                outcome = trial.run(recovers)
            except Violation as violation:
                raise Violation(f"{error} at call {first} ({calls[first - 1]}), {count} times, ack "
                                f"{ack}: {violation}") from violation
            failed = [call for call, _, fails in trial.calls() if fails]
        return (error, failed[0], outcome) if failed else None

    outcomes = {}
    with concurrent.futures.ThreadPoolExecutor(TRIALS_AT_ONCE) as pool:
        for error, call, outcome in filter(None, pool.map(fail, trials)):
            of_call = outcomes.setdefault(error, {}).setdefault(call, collections.Counter())
            of_call[outcome] += 1
    return outcomes


@contextlib.contextmanager
def small_tmpfs(folder):
    """None if this user may not mount."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "none", folder],
                             stderr=subprocess.DEVNULL, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def take_pages_away(run, how):
    """The shard loses pages of its log, ends and says why; started again it serves, and a writer
    that has been there all the time goes on."""
    shard = run.shard([f"tables.capacity_rows={SMALL_CAPACITY_ROWS}"]).await_serving()
    writer = run.peer("writer", shard.address, f"writer-{how.__name__}", key=1)
    writer.await_more(ROWS)
    shard.stop()  # or it would take the pages first
    how(run.data / "replay.rows")
    shard.go_on()
    shard.await_end(expected=1)
    if "THE DISK FAILED: cannot read" not in shard.log_text() or (
            "replay.rows" not in shard.log_text()):
        raise Violation(f"{how.__name__}: the shard says:\n{shard.log_text()[-2000:]}")
    (run.data / "filler").unlink(missing_ok=True)
    shard = run.shard([f"tables.capacity_rows={SMALL_CAPACITY_ROWS}"],
                      port=shard.port).await_serving()
    writer.await_more(ROWS)
    writer.end()
    shard.end()


def cut_off(log):
    """Somebody truncates the file behind its headers."""
    os.truncate(log, log.stat().st_size // 2)


def punch_hole_into_full_disk(log):
    """Pages that have to be had again, from a file system that has none left."""
    size = log.stat().st_size
    fill(log.parent / "filler")
    subprocess.run(["fallocate", "--punch-hole", "--offset", str(size // 8192 * 4096), "--length",
                    str(size // 2), log], check=True)
    fill(log.parent / "filler")


def fill(path):
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def pages_go_away(build_dir):
    done = []
    with FaultRun(build_dir) as run:
        take_pages_away(run, cut_off)
        done.append("cut_off")
    with FaultRun(build_dir) as run, small_tmpfs(run.data) as mounted:
        if mounted:
            try:
                take_pages_away(run, punch_hole_into_full_disk)
                done.append("punch_hole_into_full_disk")
            finally:
                for process in run.processes:
                    process.kill()
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir", metavar="BUILD_DIR")
    parser.add_argument("--long", action="store_true")
    args = parser.parse_args()
    begin = time.monotonic()
    cases = [("DISK", (1,), False)]
    if args.long:
        cases = [(ack, (1, 3), recovers) for ack in ("DISK", "PROCESS")
                 for recovers in (False, True)]
    try:
        figures = {"pages_gone": pages_go_away(args.build_dir)}
        for ack, counts, recovers in cases:
            name = f"{ack}{', recovering' if recovers else ''}"
            figures[name] = each_call_fails(args.build_dir, ack, counts, recovers, args.long)
    except Violation as violation:
        print(f"disk_faults_test: {violation}", file=sys.stderr)
        return 1
    print(json.dumps({**figures, "violations": 0, "seconds": round(time.monotonic() - begin, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
