"""SAC updates a second of train() of stable-baselines3, or of SBX (the same in JAX), on a CPU.

    build/peers-sb3/bin/python sac_train.py --peer sb3 [--obs 17] [--act 6] [--batch 256]
                                            [--threads 1] [--seconds 2]

Starts from transitions in memory and does whole updates (critics, policy, temperature, targets);
train() also draws its batches (about 2 % of its time).  SBX does 200 updates a call, compiled as
one; stable-baselines3 ten.  --threads limits PyTorch's and, by the cores that the process may use,
JAX's.  Prints {"value": ..., "unit": ..., "peer": ...}.
"""
import argparse
import importlib.metadata
import json
import os
import time


def updates_per_second(args):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", choices=["sb3", "sbx"], default="sb3")
    parser.add_argument("--obs", type=int, default=17)
    parser.add_argument("--act", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
    package = "sbx-rl" if args.peer == "sbx" else "stable-baselines3"
    print(json.dumps({"value": updates_per_second(args), "unit": "updates/s",
                      "peer": f"{package} {importlib.metadata.version(package)}"}))


if __name__ == "__main__":
    main()
