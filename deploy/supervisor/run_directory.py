"""The run directory: who holds it, its configuration, and what outlives a restart."""

import contextlib
import difflib
import fcntl
import glob
import json
import os
import re
import shutil
import subprocess
import time

from errors import Failure, WrongUse

MIN_FREE_BYTES = 200 << 20


class RunDirectory:
    """Holds the lock of a run directory while it is entered.

    `state` (state.json) holds what outlives a restart: the shards' ports, seconds of earlier
    starts, and what actors that are gone have counted.
    """

    def __init__(self, args):
        self.path = os.path.abspath(args.run_dir)
        self.config_path = os.path.join(self.path, "config.txtpb")
        self._args = args
        self._lock = None
        self.state = {"shard_ports": [], "wall_seconds": 0.0, "actors": {}}

    def __enter__(self):
        try:
            for name in ("logs", "actors", "evaluator", "ports"):
                os.makedirs(os.path.join(self.path, name), exist_ok=True)
            self._lock = open(os.path.join(self.path, "lock"), "a+")
        except OSError as error:
            raise Failure(f"--run_dir {self.path}: cannot be written: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            raise WrongUse(f"--run_dir {self.path}: in use by another deploy/up "
                           f"(process {holder})") from None
        self._check_room(MIN_FREE_BYTES)
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        self._load_state()
        return self

    def __exit__(self, *unused):
        self._lock.truncate(0)
        self._lock.close()

    def file(self, *names):
        return os.path.join(self.path, *names)

    def write(self, name, text):
        """Writes a file atomically."""
        path = self.file(name)
        temporary = path + ".tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise Failure(f"cannot write {path}: {error}") from error

    def save_state(self):
        self.write("state.json", json.dumps(self.state, indent=2) + "\n")

    def prepare_config(self, shards):
        """Checks the configuration and stores it with these shards; says what changed."""
        text = self._printed_config(shards)
        old = self._old_config()
        if old is not None:
            self._check_same_run(old, text)
            for line in difflib.unified_diff(comparable(old), comparable(text), n=0, lineterm=""):
                if line[:1] in "+-" and line[:3] not in ("+++", "---"):
                    print(f"deploy/up: changed since the last start: {line}")
        self.write("config.txtpb", text)
        return text

    def _printed_config(self, shards):
        return self._ask("troupe-replay-server", "--print_config", f"--config={self._args.config}",
                         *[f"--set={word}" for word in self._args.set],
                         "--set=shards=" + ",".join(shards))

    def _ask(self, name, *flags):
        """What a program prints when it is called with these flags."""
        program = os.path.join(self._args.build_dir, "bin", name)
        try:
            result = subprocess.run([program, *flags], capture_output=True, text=True, check=False)
        except OSError as error:
            raise Failure(f"cannot run {program}, is it built? {error}") from error
        if result.returncode == 2:
            raise WrongUse(result.stderr.strip())
        if result.returncode != 0:
            raise Failure(result.stderr.strip())
        return result.stdout

    def _old_config(self):
        try:
            with open(self.config_path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _check_same_run(self, old, new):
        for what, pattern in (("run", r'^run: "(.*)"'), ("environment.id", r'^  id: "(.*)"')):
            before, now = (re.search(pattern, text, re.MULTILINE) for text in (old, new))
            if before and now and before[1] != now[1]:
                raise WrongUse(f"--run_dir {self.path}: holds a run with {what} '{before[1]}', "
                               f"but the configuration says '{now[1]}'; choose another directory")

    def _check_room(self, needed, why=""):
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise Failure(f"--run_dir {self.path}: only {free >> 20} MiB are free on its disk, "
                          f"at least {needed >> 20} MiB are needed{why}")

    def check_room_for_rows(self, shards):
        """Before the start: shards allocate their row logs only when the first actor comes."""
        new = [i for i in range(shards) if not glob.glob(glob.escape(self.file(f"shard-{i}")) +
                                                         "/*.rows")]
        if new:
            a_shard = int(self._ask("troupe-actor", "--print_row_log_bytes",
                                    f"--config={self.config_path}"))
            self._check_room(MIN_FREE_BYTES + len(new) * a_shard,
                             f": {a_shard >> 20} MiB for the rows of each of {len(new)} shards, "
                             f"{MIN_FREE_BYTES >> 20} MiB for the rest")

    def _load_state(self):
        try:
            with open(self.file("state.json"), encoding="utf-8") as file:
                self.state.update(json.load(file))
        except FileNotFoundError:
            self.state["created_unix_time"] = time.time()
            self.state["commit"] = commit_of_sources()
        except ValueError as error:
            raise Failure(f"{self.file('state.json')} is damaged: {error}") from error


def commit_of_sources():
    """Of the checkout that this file lies in; "" if that cannot be known."""
    try:
        result = subprocess.run(["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe",
                                 "--always", "--dirty", "--abbrev=40"],
                                capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def comparable(config_text):
    """The lines of a configuration, but for the shards, whose ports may change at every start."""
    return [line for line in config_text.splitlines() if not line.startswith("shards:")]


def total_env_steps(config_text):
    return int(re.search(r"^total_env_steps: (\d+)", config_text, re.MULTILINE)[1])


def learner_ranks(config_text):
    set_by_user = re.search(r"^  ranks: (\d+)", config_text, re.MULTILINE)
    return int(set_by_user[1]) if set_by_user else 1


def environment_id(config_text):
    return re.search(r'^  id: "(.*)"', config_text, re.MULTILINE)[1]
