"""The processes of a training run, started again when they are killed; much like the supervisor's,
but independent of it."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

from checker import parse_lines, parse_row_log, resumed_updates

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "supervisor"))
import ports  # noqa: E402

CONFIG = os.path.join(ROOT, "deploy", "configs", "sac_pendulum.txtpb")
NUM_SHARDS = NUM_ACTORS = 2
CAPACITY_ROWS = 1000000  # of each shard; more than a run makes, so that nothing is evicted
CHECKPOINT_INTERVAL = 200
# Small networks: this is about processes, not about learning.  `move_after_ms` is shorter than some
# of the pauses before a restart, so that actors move between shards too.
SETTINGS = [
    f"tables.capacity_rows={CAPACITY_ROWS}", "actor.num_envs=4", "actor.move_after_ms=1500",
    "learner.sac.random_steps=500", "learner.sac.batch_size=32",
    "learner.sac.critic.hidden_sizes=16", "learner.sac.actor.hidden_sizes=16",
    f"learner.checkpoint_interval_updates={CHECKPOINT_INTERVAL}",
    "learner.log_interval_updates=50", "learner.publish_interval_updates=25",
]
NO_END = 10**9  # env steps
TICK_SECONDS = 0.05
PATIENCE_SECONDS = 120


class Violation(Exception):
    """The run did what it must not do."""


class Process:
    """One process over its lives.  `command(life)` returns the command of life 0, 1, ..."""

    def __init__(self, name, command, folder):
        self.name = name
        self.kind = name.rsplit("-", 1)[0]
        self.life = -1
        self.kills = 0
        self.finished = False  # ended by itself, as it should
        self._command = command
        self._folder = folder
        self._process = None
        self._start_at = 0.0  # monotonic

    @property
    def running(self):
        return self._process is not None

    def log(self, life):
        return os.path.join(self._folder, f"{self.name}.{life}.log")

    def start(self):
        self.life += 1
        # The kernel ends it with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *self._command(self.life)]
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        with open(self.log(self.life), "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=subprocess.STDOUT, env=environment)

    def start_if_due(self):
        if not self.running and not self.finished and time.monotonic() >= self._start_at:
            self.start()

    def kill(self, seconds_until_restart):
        """Returns False if it had ended by itself just before."""
        self._process.kill()
        killed = self._process.wait() == -signal.SIGKILL
        self._process = None
        self._start_at = time.monotonic() + seconds_until_restart
        self.kills += killed
        return killed

    def terminate(self):
        self.signal(signal.SIGTERM)

    def signal(self, number):
        self._process.send_signal(number)

    def poll(self):
        """Notices an end that nobody asked for: only exit code 0 is not a violation."""
        if self._process is None or self._process.poll() is None:
            return
        code = self._process.returncode
        self._process = None
        self.finished = True
        if code != 0:
            raise Violation(f"{self.name} (life {self.life}) ended with {code}:\n"
                            f"{read(self.log(self.life))[-2000:]}")


class Cluster:
    """Shards, actors with ledgers and a learner in `run_dir`."""

    def __init__(self, bin_dir, run_dir, config=CONFIG, settings=tuple(SETTINGS),
                 num_actors=NUM_ACTORS):
        self._bin = bin_dir
        self.run_dir = run_dir
        self.total_env_steps = NO_END
        self.checkpoints = []  # newest when each life of the learner began. Unit: updates
        for name in ("logs", "ledgers", "ports"):
            os.makedirs(self._file(name))
        addresses = [f"127.0.0.1:{port}" for port in ports.choose(NUM_SHARDS)]
        self._flags = [f"--config={config}", "--metrics_port=-1",
                       *[f"--set={word}" for word in settings],
                       "--set=shards=" + ",".join(addresses)]
        self.shards = [self._make_shard(i) for i in range(NUM_SHARDS)]
        self.actors = [self._make_actor(i) for i in range(num_actors)]
        self.learner = Process("learner-0", self._learner_command, self._file("logs"))
        self.processes = [*self.shards, *self.actors, self.learner]

    # Making the processes.

    def _file(self, *names):
        return os.path.join(self.run_dir, *names)

    def _program(self, name, *flags):
        return [os.path.join(self._bin, name), *self._flags, *flags]

    def _make_shard(self, i):
        return Process(f"shard-{i}", lambda life: self._program(
            "troupe-replay-server", f"--shard_index={i}", f"--data_dir={self._file(f'shard-{i}')}",
            f"--port_file={self._file('ports', f'shard-{i}.{life}')}"), self._file("logs"))

    def _make_actor(self, i):
        return Process(f"actor-{i}", lambda life: self._program(
            "troupe-actor", f"--actor_index={i}",
            f"--ledger={self._file('ledgers', f'actor-{i}.{life}')}"), self._file("logs"))

    def _learner_command(self, life):
        self.checkpoints.append(self.newest_checkpoint())
        return self._program("troupe-learner", f"--run_dir={self.run_dir}",
                             f"--set=total_env_steps={self.total_env_steps}")

    # Running them.

    def tick(self):
        for process in self.processes:
            process.poll()
            if process.finished and self.total_env_steps == NO_END:
                raise Violation(f"{process.name} ended though the run goes on:\n"
                                f"{read(process.log(process.life))[-2000:]}")
            process.start_if_due()
        time.sleep(TICK_SECONDS)

    def wait_for(self, condition, what):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Violation(f"waited {PATIENCE_SECONDS} s in vain for {what}")
            self.tick()

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tick()

    def is_well(self, process):
        """Has this life of the process done what it is for?"""
        if not process.running:
            return False
        if process.kind == "shard":
            return os.path.exists(self._file("ports", f"{process.name}.{process.life}"))
        if process.kind == "actor":
            return bool(read(self._file("ledgers", f"{process.name}.{process.life}")))
        return " updates/s, " in read(process.log(process.life))

    def kill_all(self):
        for process in self.processes:
            if process.running:
                process.kill(0)

    # What they have done.

    def newest_checkpoint(self):
        """In updates; 0: there is none."""
        found = [int(os.path.basename(os.path.dirname(path)))
                 for path in glob.glob(self._file("checkpoints", "[0-9]*", "checkpoint.json"))
                 if os.path.basename(os.path.dirname(path)).isdigit()]
        return max(found, default=0)

    def row_log(self, shard):
        """None: there is no log yet."""
        path = self._file(f"shard-{shard}", "replay.rows")
        result = subprocess.run([os.path.join(self._bin, "troupe-row-log"), path],
                                capture_output=True, text=True, check=False)
        return parse_row_log(result.stdout) if result.returncode == 0 else None

    def row_logs(self):
        return {shard: log for shard in range(NUM_SHARDS) if (log := self.row_log(shard))}

    def env_steps(self):
        return sum(totals["env_steps"] for _, totals in self.row_logs().values())

    def ledgers(self):
        return [read(path) for path in sorted(glob.glob(self._file("ledgers", "*")))]

    def learner_lines(self):
        lines = []
        for text in read(self._file("learner.jsonl")).splitlines(keepends=True):
            try:
                lines += parse_lines(text)
            except json.JSONDecodeError:
                continue  # torn by kill -9, and gone on with by the next life
        return lines

    def learner_lives(self):
        return [(checkpoint, resumed_updates(read(self.learner.log(life))))
                for life, checkpoint in enumerate(self.checkpoints)]

    def shard_logs(self):
        return [read(shard.log(life)) for shard in self.shards for life in range(shard.life + 1)]

    def left_behind(self):
        """Command lines of our programs that still run in this run's directory."""
        lines = [read(path).split("\0") for path in glob.glob("/proc/[0-9]*/cmdline")]
        return [line for line in lines if os.path.basename(line[0]).startswith("troupe-") and
                any(self.run_dir in word for word in line)]


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
