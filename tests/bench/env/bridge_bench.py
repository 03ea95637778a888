"""What the bridge costs: environments in Python, stepped by an actor, beside the same ones in bare
loops and in Gymnasium's AsyncVectorEnv, in turns, on the same cores.

    python3 bridge_bench.py --bench build/release/tests/env_bench [--processes 2] [--repeats 5]

prints lines of bench.jsonl, medians of --repeats runs.  A bare loop is a process that steps one
environment with actions drawn beforehand and does nothing else; --processes of them run together.
"""
import argparse
import importlib
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time

import gymnasium
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
# What a step costs depends on the actions: of 64, over and over, Humanoid's took 156 to 187 us.
NUM_ACTIONS = 4096
# Id and module.
CASES = [("HalfCheetah-v5", ""), ("Humanoid-v5", ""), ("Frames-v0", "frames")]


def make(env_id, module):
    if module:
        importlib.import_module(module)
    return gymnasium.make(env_id)


def bare_loop(env_id, module, seed, seconds, begin, rates):
    env = make(env_id, module)
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(NUM_ACTIONS)]
    env.reset(seed=seed)

    def loop(duration):
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < duration:
            _, _, terminated, truncated, _ = env.step(actions[steps % NUM_ACTIONS])
            steps += 1
            if terminated or truncated:
                env.reset()
        return steps / (time.perf_counter() - start)

    loop(seconds / 5)
    begin.wait()
    rates.put(loop(seconds))


def bare(args, env_id, module):
    """Steps per second of all loops together."""
    context = multiprocessing.get_context("spawn")
    begin, rates = context.Barrier(args.processes), context.Queue()
    loops = [context.Process(target=bare_loop, args=(env_id, module, 1 + i, args.seconds, begin, rates))
             for i in range(args.processes)]
    for loop in loops:
        loop.start()
    total = sum(rates.get() for _ in loops)
    for loop in loops:
        loop.join()
    return total


def async_vector_env(args, env_id, module, num_envs):
    envs = gymnasium.vector.AsyncVectorEnv([lambda: make(env_id, module)] * num_envs)
    envs.action_space.seed(1)
    actions = [envs.action_space.sample() for _ in range(NUM_ACTIONS // 4)]
    envs.reset(seed=1)

    def loop(duration):
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < duration:
            envs.step(actions[rounds % len(actions)])
            rounds += 1
        return rounds * num_envs / (time.perf_counter() - start)

    loop(args.seconds / 5)
    rate = loop(args.seconds)
    envs.close()
    return rate


def bridge(args, env_id, module):
    command = [args.bench, "--gymnasium", "--id", env_id, "--module", module, "--num_envs",
               str(args.processes * args.envs_per_child), "--envs_per_child",
               str(args.envs_per_child), "--seconds", str(args.seconds)]
    return json.loads(subprocess.check_output(command, text=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", required=True, help="path of env_bench")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--envs_per_child", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4, help="of each run")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    os.environ.update(PYTHONPATH=str(HERE), TROUPE_PYTHON=sys.executable, OMP_NUM_THREADS="1",
                      OPENBLAS_NUM_THREADS="1")
    np.seterr(all="ignore")
    for env_id, module in CASES:
        rates = {"bridge": [], "bare": [], "async": [], "async_many": []}
        for _ in range(args.repeats):
            line = bridge(args, env_id, module)
            rates["bridge"].append(line["value"])
            rates["bare"].append(bare(args, env_id, module))
            rates["async"].append(async_vector_env(args, env_id, module, args.processes))
            rates["async_many"].append(async_vector_env(
                args, env_id, module, args.processes * args.envs_per_child))
        ratios = [a / b for a, b in zip(rates["bridge"], rates["bare"])]
        line.update(value=statistics.median(rates["bridge"]), children=args.processes,
                    of_bare_loops=statistics.median(ratios),
                    of_bare_loops_spread=[min(ratios), max(ratios)],
                    peers={f"{args.processes} bare loops": statistics.median(rates["bare"]),
                           f"AsyncVectorEnv {args.processes}": statistics.median(rates["async"]),
                           f"AsyncVectorEnv {args.processes * args.envs_per_child}":
                               statistics.median(rates["async_many"])})
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
