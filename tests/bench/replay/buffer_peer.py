"""In-process Python buffers as peers: cpprb and stable-baselines3's ReplayBuffer (see worker.py).

Each runs in its own virtual environment.  They hold what a shard's table holds: HalfCheetah's
transitions, 17 observations and 6 actions of float32.
"""
import argparse
import resource
import time

import numpy as np

from worker import answer

OBSERVATIONS, ACTIONS = 17, 6
FILL_AT_ONCE = 10000


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def transitions(count):
    rng = np.random.default_rng(1)
    return {"obs": rng.standard_normal((count, OBSERVATIONS), dtype=np.float32),
            "act": rng.standard_normal((count, ACTIONS), dtype=np.float32),
            "rew": rng.standard_normal((count, 1), dtype=np.float32),
            "next_obs": rng.standard_normal((count, OBSERVATIONS), dtype=np.float32),
            "done": np.zeros((count, 1), np.float32)}


class Cpprb:
    def __init__(self, rows, prioritized, updates):
        import cpprb
        shapes = {"obs": {"shape": OBSERVATIONS}, "act": {"shape": ACTIONS}, "rew": {},
                  "next_obs": {"shape": OBSERVATIONS}, "done": {}}
        make = cpprb.PrioritizedReplayBuffer if prioritized else cpprb.ReplayBuffer
        self._buffer = make(rows, shapes)
        self._updates = updates
        self._rng = np.random.default_rng(1)
        for _ in range(0, rows, FILL_AT_ONCE):
            block = transitions(min(FILL_AT_ONCE, rows))
            if prioritized:
                block["priorities"] = self._rng.exponential(size=len(block["rew"]))
            self._buffer.add(**block)

    def sample(self, batch):
        sampled = self._buffer.sample(batch)
        if self._updates:
            self._buffer.update_priorities(sampled["indexes"], self._rng.exponential(size=batch))


class StableBaselines3:
    def __init__(self, rows, prioritized, updates):
        from gymnasium.spaces import Box
        from stable_baselines3.common.buffers import ReplayBuffer
        if prioritized or updates:
            raise ValueError("stable-baselines3 has no prioritized buffer")
        self._buffer = ReplayBuffer(rows, Box(-1, 1, (OBSERVATIONS,)), Box(-1, 1, (ACTIONS,)),
                                    device="cpu")
        # Its add() takes one step at a time, and that is not what is measured here.
        block = transitions(rows)
        self._buffer.observations[:, 0] = block["obs"]
        self._buffer.next_observations[:, 0] = block["next_obs"]
        self._buffer.actions[:, 0] = block["act"]
        self._buffer.rewards[:] = block["rew"]
        self._buffer.full = True

    def sample(self, batch):
        self._buffer.sample(batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("buffer", choices=["cpprb", "stable_baselines3"])
    parser.add_argument("--rows", type=int, default=1000000)
    parser.add_argument("--prioritized", action="store_true")
    parser.add_argument("--updates", action="store_true", help="a new priority for each sample")
    args = parser.parse_args()
    kind = {"cpprb": Cpprb, "stable_baselines3": StableBaselines3}[args.buffer]
    buffer = kind(args.rows, args.prioritized, args.updates)

    def sample(batch, seconds):
        begin, cpu, sampled = time.perf_counter(), cpu_seconds(), 0
        while time.perf_counter() < begin + seconds:
            buffer.sample(batch)
            sampled += batch
        elapsed = time.perf_counter() - begin
        return {"rate": sampled / elapsed, "client_us": (cpu_seconds() - cpu) / sampled * 1e6}

    answer({}, {"sample": sample})


if __name__ == "__main__":
    main()
