"""The vector environment beside EnvPool, in turns, on the same threads.

    python3 env_peers.py --bench build/release/tests/env_bench [--id HalfCheetah-v5]

prints one line of bench.jsonl: medians of --repeats runs, Troupe's with EnvPool's as its peer.
EnvPool needs an environment of its own (it brings its own MuJoCo); 1.2.5 is the newest one for
Debian 12's Python:  python3 -m venv build/peers && build/peers/bin/pip install envpool==1.2.5
EnvPool is asynchronous here and takes the best of a few batch sizes, which is its fastest mode.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PEER = "envpool 1.2.5 async"


def envpool_steps_per_second(args, batch_size):
    """Runs inside EnvPool's own virtual environment."""
    import envpool
    import numpy as np

    env = envpool.make_gymnasium(args.id, num_envs=args.num_envs, batch_size=batch_size,
                                 num_threads=args.num_threads)
    space, rng = env.action_space, np.random.default_rng(1)
    discrete = not hasattr(space, "low")

    def draw():
        if discrete:
            return rng.integers(space.n, size=batch_size)
        return rng.uniform(space.low, space.high, (batch_size, *space.shape))

    actions = [draw() for _ in range(64)]
    env.async_reset()

    def measure(seconds):
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            info = env.recv()[-1]
            env.send(actions[rounds % len(actions)], info["env_id"])
            rounds += 1
        return rounds * batch_size / (time.perf_counter() - start)

    measure(args.seconds / 5)
    return measure(args.seconds)


def run_envpool(args):
    rates = []
    for batch_size in sorted({args.num_threads, args.num_envs // 4, args.num_envs // 2}):
        command = [args.peers_python, os.path.abspath(__file__), "--envpool_batch", str(batch_size)]
        rates.append(float(subprocess.check_output(command + shared_flags(args), text=True)
                           .splitlines()[-1]))
    return max(rates)


def run_troupe(args):
    return json.loads(subprocess.check_output([args.bench] + shared_flags(args), text=True))


def shared_flags(args):
    return ["--id", args.id, "--num_envs", str(args.num_envs), "--num_threads",
            str(args.num_threads), "--seconds", str(args.seconds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", help="path of env_bench")
    parser.add_argument("--peers_python", default="build/peers/bin/python",
                        help="Python that has EnvPool")
    parser.add_argument("--id", default="HalfCheetah-v5")
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--envpool_batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.envpool_batch:
        print(envpool_steps_per_second(args, args.envpool_batch))
        return 0
    if not args.bench:
        parser.error("--bench is needed")
    runs, peers = [], []
    for _ in range(args.repeats):
        runs.append(run_troupe(args))
        peers.append(run_envpool(args))
    line = runs[0]
    line["value"] = statistics.median(run["value"] for run in runs)
    line.update(peer=PEER, peer_value=statistics.median(peers))
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
