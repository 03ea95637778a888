"""One process of the cluster, restarted when it dies unexpectedly."""

import os
import signal
import subprocess
import time

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10
# A process that lived this long was well; its next restart is quick again.
WELL_SECONDS = 30
# So many failures (not kills) in a row, each soon after its start, and it never will be well.
MAX_FAILURES = 5
# A process that ended well, though the run goes on, is started again after this.
AFTER_SUCCESS_SECONDS = 5
WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "--"]


class Child:
    """Starts `command` with its output in a log file.

    The kernel kills it when this process dies, however that happens (setpriv --pdeathsig), and it
    leads a process group, so that a stop reaches its own children too.
    """

    def __init__(self, name, command, log_path):
        self.name = name
        self.log_path = log_path
        self.exit_code = None  # of the last life; None while it runs
        self.restarts = 0
        self.started = 0.0  # Unix time of the last start
        self.command = command
        self._process = None
        self._failures = 0
        self._delay = FIRST_DELAY_SECONDS
        self._next_start = 0.0  # monotonic

    @property
    def running(self):
        return self._process is not None

    @property
    def pid(self):
        return self._process.pid if self._process else None

    @property
    def hopeless(self):
        """True if starting it again cannot help: wrong use, or failure after failure."""
        return self.exit_code == 2 or self._failures >= MAX_FAILURES

    def start(self):
        # One BLAS thread: two on two cores fall to a third of one.
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen([*WITH_PARENT, *self.command],
                                             stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=subprocess.STDOUT, start_new_session=True,
                                             env=environment)
        self.started = time.time()
        self.exit_code = None

    def poll(self):
        """Notices that it ended; True once per end."""
        if self._process is None or self._process.poll() is None:
            return False
        self.exit_code = self._process.returncode
        self._process = None
        lived = time.time() - self.started
        if lived >= WELL_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        self._failures = self._failures + 1 if self.exit_code > 0 and lived < WELL_SECONDS else 0
        delay = self._delay if self.exit_code != 0 else AFTER_SUCCESS_SECONDS
        self._next_start = time.monotonic() + delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
        return True

    def restart_if_due(self):
        if self._process is None and time.monotonic() >= self._next_start:
            self.restarts += 1
            self.start()

    def signal(self, number):
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass

    def kill(self):
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def how_it_ended(self):
        if self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"

    def last_words(self, lines=5):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(f"  {line}" for line in log.readlines()[-lines:])
