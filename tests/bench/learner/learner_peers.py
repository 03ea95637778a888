"""SAC updates beside train() of stable-baselines3 or of SBX (the same in JAX), in turns.

    python3 learner_peers.py --bench build/release/tests/learner_bench [--peer sbx] [--threads 2]

prints one line of bench.jsonl: medians of --repeats rounds, Troupe's with the peer's.  Peers have
environments of their own, with PyTorch and JAX from PyPI:
    python3 -m venv build/peers-sb3 && build/peers-sb3/bin/pip install stable-baselines3==2.9.2
    python3 -m venv build/peers-sbx && build/peers-sbx/bin/pip install sbx-rl==0.28.0
All start from transitions in memory and do whole updates (critics, policy, temperature, targets);
train() also draws its batches (about 2 % of its time).  SBX does 200 updates a call, compiled as
one; stable-baselines3 ten.  --threads above 1 limits PyTorch's, JAX's and ours; those of JAX are
limited by the cores that it may use.
"""
import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time


def peer_updates_per_second(args):
    """Runs inside the peer's own virtual environment."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3.common.logger import configure

    if args.peer == "sbx":
        from sbx import SAC
    else:
        from stable_baselines3 import SAC
    torch.set_num_threads(args.threads)
    at_once = 200 if args.peer == "sbx" else 10

    class Shapes(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (args.obs,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (args.act,), np.float32)

        def reset(self, seed=None, options=None):
            return np.zeros(args.obs, np.float32), {}

        def step(self, action):
            return np.zeros(args.obs, np.float32), 0.0, False, False, {}

    model = SAC("MlpPolicy", Shapes(), batch_size=args.batch, buffer_size=20000, device="cpu",
                seed=1)
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(1)
    for _ in range(16384):
        s, s_next = rng.uniform(-1, 1, (2, 1, args.obs)).astype(np.float32)
        a = rng.uniform(-1, 1, (1, args.act)).astype(np.float32)
        model.replay_buffer.add(s, s_next, a, rng.uniform(-1, 1, 1), np.zeros(1), [{}])

    def measure(seconds):
        updates, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            model.train(gradient_steps=at_once, batch_size=args.batch)
            updates += at_once
        return updates / (time.perf_counter() - start)

    measure(args.seconds / 5)  # compiles, too
    return measure(args.seconds)


def shared_flags(args):
    return [f"--{name}={getattr(args, name)}"
            for name in ("obs", "act", "batch", "threads", "seconds")]


def environment(args):
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(args.threads),
            "MKL_NUM_THREADS": str(args.threads)}


def run_peer(args):
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:args.threads])
    python = args.peers_python or f"build/peers-{args.peer}/bin/python"
    command = ["taskset", "-c", cores, python, os.path.abspath(__file__), "--run_peer",
               f"--peer={args.peer}"] + shared_flags(args)
    return json.loads(subprocess.check_output(command, text=True, env=environment(args))
                      .splitlines()[-1])


def run_troupe(args):
    return json.loads(subprocess.check_output([args.bench] + shared_flags(args), text=True,
                                              env=environment(args)).splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", help="path of learner_bench")
    parser.add_argument("--peer", choices=["sb3", "sbx"], default="sb3")
    parser.add_argument("--peers_python", help="Python that has it (default build/peers-PEER's)")
    parser.add_argument("--obs", type=int, default=17)
    parser.add_argument("--act", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--run_peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_peer:
        package = "sbx-rl" if args.peer == "sbx" else "stable-baselines3"
        print(json.dumps({"value": peer_updates_per_second(args),
                          "version": f"{package} {importlib.metadata.version(package)}"}))
        return 0
    if not args.bench:
        parser.error("--bench is missing")
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(run_troupe(args))
        theirs.append(run_peer(args))
    line = dict(ours[0], value=statistics.median(o["value"] for o in ours))
    line["peer"] = theirs[0]["version"]
    line["peer_value"] = statistics.median(t["value"] for t in theirs)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
