"""SAC updates beside stable-baselines3's train(), in turns, on one thread.

    python3 learner_peers.py --bench build/release/tests/learner_bench

prints one line of bench.jsonl: medians of --repeats rounds, Troupe's with stable-baselines3's as
its peer.  The peer has an environment of its own, with PyTorch from PyPI:
    python3 -m venv build/peers-sb3 && build/peers-sb3/bin/pip install stable-baselines3==2.9.2
Both start from transitions in memory and do whole updates (critics, policy, temperature, targets);
stable-baselines3's train() also draws its batches (about 2 % of its time).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def sb3_updates_per_second(args):
    """Runs inside the peer's own virtual environment."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import configure

    torch.set_num_threads(args.threads)

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
            model.train(gradient_steps=10, batch_size=args.batch)
            updates += 10
        return updates / (time.perf_counter() - start)

    measure(args.seconds / 5)
    return measure(args.seconds)


def shared_flags(args):
    return [f"--{name}={getattr(args, name)}"
            for name in ("obs", "act", "batch", "threads", "seconds")]


def environment(args):
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(args.threads),
            "MKL_NUM_THREADS": str(args.threads)}


def run_peer(args):
    command = [args.peers_python, os.path.abspath(__file__), "--peer"] + shared_flags(args)
    return json.loads(subprocess.check_output(command, text=True, env=environment(args))
                      .splitlines()[-1])


def run_troupe(args):
    return json.loads(subprocess.check_output([args.bench] + shared_flags(args), text=True,
                                              env=environment(args)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", help="path of learner_bench")
    parser.add_argument("--peers_python", default="build/peers-sb3/bin/python",
                        help="Python that has stable-baselines3")
    parser.add_argument("--obs", type=int, default=17)
    parser.add_argument("--act", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of each run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        import stable_baselines3
        print(json.dumps({"value": sb3_updates_per_second(args),
                          "version": stable_baselines3.__version__}))
        return 0
    if not args.bench:
        parser.error("--bench is missing")
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(run_troupe(args))
        theirs.append(run_peer(args))
    line = dict(ours[0], value=statistics.median(o["value"] for o in ours))
    line["peer"] = f"stable-baselines3 {theirs[0]['version']}"
    line["peer_value"] = statistics.median(t["value"] for t in theirs)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
