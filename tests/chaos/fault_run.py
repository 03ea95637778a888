"""A shard, peers and proxies between them, for the tests that disturb them.

A writer's ledger (see faults/peer.cc) is held against the shard's log at the end: check_rows()."""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
TICK_SECONDS = 0.02
PATIENCE_SECONDS = 120
# common/channel.h and replay_server/server.cc: a peer that is silent for 20 s is asked, and given
# up 10 s later.  An attempt to connect takes at most 5 s, the pause before it at most 2 s
# (reconnect_max_ms).
KEEPALIVE_SECONDS = 20 + 10
RECONNECT_SECONDS = 5 + 2
SLACK_SECONDS = 5  # for a machine that has other things to do


class Violation(Exception):
    """Something did what it must not do."""


def wait_for(condition, what, seconds=PATIENCE_SECONDS):
    """Returns the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() > begin + seconds:
            raise Violation(f"waited {seconds} s in vain for {what}")
        time.sleep(TICK_SECONDS)
    return time.monotonic() - begin


class Process:
    """Ends with this process, however that ends."""

    def __init__(self, name, command, log, **more):
        self.name = name
        self.log = log
        with open(log, "ab") as file:
            more.setdefault("stdout", file)
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command],
                                            stderr=file, **more)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def stop(self):
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log_text(self):
        return self.log.read_text(errors="replace")

    def end(self, expected=0):
        """SIGTERM, and the exit code must be as expected."""
        self.process.terminate()
        self.await_end(expected)

    def await_end(self, expected=0):
        wait_for(lambda: not self.running(), f"{self.name} to end")
        if self.process.returncode != expected:
            raise Violation(f"{self.name} ended with {self.process.returncode}, not {expected}:\n"
                            f"{self.log_text()[-2000:]}")


class Shard(Process):
    """troupe-replay-server on run.dir/data."""

    def __init__(self, run, settings=(), environment=None, wrapper=(), port=0):
        self._port_file = run.dir / "port"
        self._metrics_file = run.dir / "metrics_port"
        for file in self._port_file, self._metrics_file:
            file.unlink(missing_ok=True)
        super().__init__("the shard", [
            *wrapper, run.bin / "troupe-replay-server", f"--listen=127.0.0.1:{port}",
            f"--data_dir={run.data}", f"--port_file={self._port_file}", "--metrics_port=0",
            f"--metrics_port_file={self._metrics_file}", "--set=tables.name=replay",
            "--set=learner.sac.random_steps=1", "--set=tables.rate_limiter.samples_per_insert=0",
            *[f"--set={setting}" for setting in settings]], run.dir / "shard.log",
            env={**os.environ, **(environment or {})})

    def serving(self):
        return self._port_file.exists()

    def await_serving(self):
        wait_for(lambda: self.serving() or not self.running(), "the shard to serve")
        if not self.serving():
            raise Violation(f"the shard did not start:\n{self.log_text()[-2000:]}")
        return self

    @property
    def port(self):
        return int(self._port_file.read_text())

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def metric(self, name):
        port = self._metrics_file.read_text().strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
            text = reply.read().decode()
        return float(re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)[1])

    def resident_bytes(self, kind="RssAnon"):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)[1]) << 10


class Peer(Process):
    """troupe-chaos-peer."""

    COUNTS = {"writer": "rows_acked", "sampler": "windows", "subscriber": "snapshots",
              "publisher": "published"}

    def __init__(self, run, role, address, name, **flags):
        self.role = role
        self.ledger = run.dir / f"{name}.ledger"
        super().__init__(name, [
            run.bin / "troupe-chaos-peer", f"--role={role}", f"--shard={address}",
            f"--ledger={self.ledger}", *[f"--{key}={value}" for key, value in flags.items()]],
            run.dir / f"{name}.log")

    def state(self):
        """The last whole line of the ledger."""
        try:
            with open(self.ledger, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return {}
        return json.loads(lines[-1]) if lines else {}

    def count(self):
        if not self.running():
            raise Violation(f"{self.name} ended with {self.process.returncode}:\n"
                            f"{self.log_text()[-2000:]}")
        return self.state().get(self.COUNTS[self.role], 0)

    def await_more(self, number, seconds=PATIENCE_SECONDS):
        """Waits until it has done so many more; returns the seconds."""
        begin = self.count()
        try:
            return wait_for(lambda: self.count() >= begin + number, "", seconds)
        except Violation as violation:
            raise Violation(f"{self.name} did {self.count() - begin} instead of {number} in "
                            f"{seconds} s") from violation


class Proxy(Process):
    """fault_proxy.py in front of `address`; call(...) gives it a command."""

    def __init__(self, run, target):
        super().__init__("a proxy", [sys.executable, HERE / "fault_proxy.py", target],
                         run.dir / "proxy.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    def call(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise Violation(f"proxy: {words}: {answer}")
        return answer


class FaultRun:
    """A temporary directory, and everything that was started in it.  A context manager."""

    def __init__(self, build_dir, keep=None):
        self.bin = pathlib.Path(build_dir).resolve() / "bin"
        self._temporary = None if keep else tempfile.TemporaryDirectory(prefix="troupe_faults_")
        self.dir = pathlib.Path(keep or self._temporary.name)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.data = self.dir / "data"
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        if self._temporary:
            self._temporary.cleanup()

    def shard(self, *args, **kwargs):
        return self._add(Shard(self, *args, **kwargs))

    def peer(self, *args, **kwargs):
        return self._add(Peer(self, *args, **kwargs))

    def proxy(self, target):
        return self._add(Proxy(self, target))

    def _add(self, process):
        self.processes.append(process)
        return process

    def end_writers(self, writers):
        """All rows are flushed, or it is a violation."""
        for writer in writers:
            writer.end()
            if not writer.state()["flushed"]:
                raise Violation(f"{writer.name} has not flushed its rows")

    def check_rows(self, writers):
        """Nothing lost, doubled or altered.  REQUIRES: end_writers().  Returns the acked rows."""
        log = self.data / "replay.rows"
        text = subprocess.run([self.bin / "troupe-row-log", log], capture_output=True, text=True,
                              check=True).stdout
        *streams, totals = [json.loads(line) for line in text.splitlines()]
        wrong = {name: totals[name] for name in ("corrupt_blocks", "duplicates", "repeated_rows")
                 if totals[name]}
        found = {line["stream"]: line for line in streams}
        acked = 0
        for writer in writers:
            state = writer.state()
            if state["streams_renamed"] or state["rows_dropped"]:
                raise Violation(f"{writer.name}: {state}")
            for name, stream in state["streams"].items():
                line = found.pop(name, None)
                acked += stream["acked"]
                if stream["acked"] > 0 and (
                        line is None or not line["contiguous"] or line["first_row"] != 0 or
                        (line["rows"], line["crc32c"]) != (stream["acked"], stream["crc32c"])):
                    raise Violation(f"{writer.name} was acked {name} {stream}, the log has {line}")
        if wrong or found:
            raise Violation(f"in the log: {wrong}, streams of nobody: {found}")
        return acked


def run_test(name, description, disturb):
    """A test's `main`: its figures as a line of JSON, or the violation; returns the exit code.

    `disturb(run, args)` does what the test does to the peers of a FaultRun and returns its figures.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build_dir", metavar="BUILD_DIR")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--keep", help="a folder for what the run leaves")
    args = parser.parse_args()
    begin = time.monotonic()
    try:
        with FaultRun(args.build_dir, args.keep) as run:
            figures = disturb(run, args)
    except Violation as violation:
        print(f"{name}: seed {args.seed}: {violation}", file=sys.stderr)
        return 1
    print(json.dumps({**figures, "seed": args.seed, "violations": 0,
                      "seconds": round(time.monotonic() - begin, 1)}))
    return 0
