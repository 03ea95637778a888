"""The Python package as a client that appends and samples, asked over its standard streams.

Rows are HalfCheetah's: 17 observations, 6 actions, a reward, episodes of 1000 steps.
"""
import argparse
import pathlib
import resource
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "replay"))
from worker import answer  # noqa: E402

EPISODE = 1000
STEPS_BETWEEN_CLOCKS = 250
VECTOR = 8


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Client:
    """Commands; rates are of this process, everything acked."""

    def __init__(self, troupe, address, prefetch):
        self._client = troupe.Client(address, "bench")
        self._layout = troupe.Layout(troupe.Column("observation", np.float32, (17,)),
                                     troupe.Column("action", np.float32, (6,), low=-1, high=1),
                                     troupe.Column("reward"))
        random = np.random.default_rng(1)
        self._observations = random.standard_normal((EPISODE + 1, 17), np.float32)
        self._actions = random.uniform(-1, 1, (EPISODE, 6)).astype(np.float32)
        self._rewards = random.standard_normal(EPISODE).astype(np.float32)
        self._writer = self._client.writer(self._layout)
        self._prefetch = prefetch

    def _timed(self, do, seconds, rows=0, writer=None):
        """`do` returns how much it has done; for `seconds`, or until it was `rows`."""
        begin, cpu, done = time.perf_counter(), cpu_seconds(), 0
        while done < rows if rows else time.perf_counter() < begin + seconds:
            done += do()
        (writer or self._writer).flush()
        elapsed = time.perf_counter() - begin
        return {"rate": done / elapsed, "items": done,
                "client_us": (cpu_seconds() - cpu) / done * 1e6}

    def episodes(self, seconds=0, rows=0):
        """Whole episodes: three arrays at a time."""
        def add():
            self._writer.add_episode(self._observations, action=self._actions,
                                     reward=self._rewards, terminated=False, truncated=True)
            return EPISODE + 1
        return self._timed(add, seconds, rows)

    def steps(self, seconds):
        """Step by step, as a loop around an environment."""
        self._at = 0

        def step():
            step, observations = self._writer.streams[0].step, self._observations
            for t in range(self._at, self._at + STEPS_BETWEEN_CLOCKS):
                step(observations[t], self._actions[t], self._rewards[t],
                     truncated=t == EPISODE - 1, next_observation=observations[t + 1])
            self._at = (self._at + STEPS_BETWEEN_CLOCKS) % EPISODE
            return STEPS_BETWEEN_CLOCKS
        return self._timed(step, seconds)

    def vector(self, seconds):
        """Steps of 8 environments at once, as a loop around a vector environment."""
        observations = np.stack([np.roll(self._observations, i, 0) for i in range(VECTOR)], 1)
        actions = np.stack([self._actions] * VECTOR, 1)
        rewards = np.stack([self._rewards] * VECTOR, 1)
        ends = np.zeros((EPISODE, VECTOR), bool)
        ends[-1] = True
        self._at = 0
        with self._client.writer(self._layout, num_streams=VECTOR) as writer:
            def step():
                step_all = writer.step_all
                for t in range(self._at, self._at + STEPS_BETWEEN_CLOCKS):
                    step_all(observations[t], actions[t], rewards[t], truncated=ends[t],
                             next_observations=observations[t + 1])
                self._at = (self._at + STEPS_BETWEEN_CLOCKS) % EPISODE
                return STEPS_BETWEEN_CLOCKS * VECTOR
            return self._timed(step, seconds, writer=writer)

    def sample(self, batch, seconds):
        """Batches of windows of two rows, each looked at."""
        with self._client.sampler(batch, prefetch=self._prefetch) as sampler:
            for _ in range(8):
                sampler.next_batch(30)

            def draw():
                return len(sampler.next_batch(30)["observation"])
            return self._timed(draw, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--package", required=True, help="folder that holds troupe")
    parser.add_argument("--address", required=True)
    parser.add_argument("--prefetch", type=int, default=4)
    args = parser.parse_args()
    sys.path.insert(0, args.package)
    import troupe
    client = Client(troupe, args.address, args.prefetch)
    answer({}, {name: getattr(client, name) for name in ("episodes", "steps", "vector", "sample")})


if __name__ == "__main__":
    main()
