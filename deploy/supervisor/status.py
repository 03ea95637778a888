"""Where the run stands, from the processes' own figures; and its line for the user."""

import collections
import shutil
import sys
import time

from observe import last_json_line

LINE_SECONDS = 10.0
# Rates are taken over this long.
RATE_SECONDS = 60.0


class Status:
    """Gathers the figures of the run."""

    def __init__(self, directory, observer, shard_names, total_steps):
        self._directory = directory
        self._observer = observer
        self._shard_names = shard_names
        self.total_steps = total_steps

    def learner(self):
        return last_json_line(self._directory.file("learner.jsonl"))

    def evaluation(self):
        return last_json_line(self._directory.file("evaluator", "evaluations.jsonl"))

    def shards_sum(self, metric):
        return sum(self._observer.latest(name).get(metric, 0.0) for name in self._shard_names)

    def env_steps(self):
        return int(max(self.learner().get("env_steps", 0),
                       self.shards_sum("troupe_replay_env_steps_total")))

    def lag(self):
        """Mean over all rows of the versions that the policy was behind the newest."""
        rows = self.shards_sum("troupe_replay_version_lag_rows_total")
        return self.shards_sum("troupe_replay_version_lag_sum_total") / rows if rows else 0.0


class Display:
    """Shows a status: one line that is rewritten on a terminal, else a line every ten seconds."""

    def __init__(self, status):
        self._status = status
        self._terminal = sys.stdout.isatty()
        self._next = 0.0
        self._history = collections.deque()  # (monotonic time, env steps)

    def say(self, text):
        """A message of its own, above the status line."""
        print(f"\r\x1b[K{text}" if self._terminal else text, flush=True)
        self._next = min(self._next, time.monotonic() + 1)

    def refresh(self):
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.5 if self._terminal else LINE_SECONDS)
        line = self._line(now)
        if self._terminal:
            width = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{line[:width - 1]}", end="", flush=True)
        else:
            print(line, flush=True)

    def close(self):
        if self._terminal:
            print(flush=True)

    def _line(self, now):
        steps, total = self._status.env_steps(), self._status.total_steps
        parts = [f"{steps:,} of {total:,} steps ({100 * steps // total} %)"]
        evaluation = self._status.evaluation()
        if evaluation:
            parts.append(f"return {evaluation['return_mean']:.1f} +- "
                         f"{evaluation['return_std']:.1f} at {evaluation['env_steps']:,}")
        learner = self._status.learner()
        if learner:
            parts.append(f"{learner.get('updates_per_second', 0):.1f} updates/s")
            parts.append(f"lag {self._status.lag():.1f}")
        else:
            parts.append("warming up")
        parts.append(f"ETA {self._eta(now, steps, total)}")
        return ", ".join(parts)

    def _eta(self, now, steps, total):
        self._history.append((now, steps))
        while now - self._history[0][0] > RATE_SECONDS:
            self._history.popleft()
        then, steps_then = self._history[0]
        if steps <= steps_then:
            return "-"
        seconds = int((total - steps) * (now - then) / (steps - steps_then))
        seconds = max(0, seconds)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
