"""The lecture's PPO run through the whole system beside stable-baselines3's, one after the other.

    ppo_bench.py --build_dir build/release --peers_python build/peers-sb3/bin/python
                 [--steps 1000000] [--rounds 1]

Ours: deploy/up with ppo_half_cheetah, so actors, shards, learner and evaluator on this machine's
cores, from the first environment step to the last update.  The peer makes fewer steps; its rate does
not depend on their number.  Prints lines of bench.jsonl.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return f"{os.cpu_count()} x {model}"


def our_rate(build_dir, steps, seed):
    """Environment steps a second, and the return of the last policy."""
    with tempfile.TemporaryDirectory(prefix="troupe_ppo_bench_") as folder:
        run_dir = os.path.join(folder, "run")
        subprocess.run([str(ROOT / "deploy" / "up"), "--no-build", "--no-prometheus", "--build_dir",
                        build_dir, "--config", str(ROOT / "deploy/configs/ppo_half_cheetah.txtpb"),
                        "--run_dir", run_dir, f"--set=total_env_steps={steps}",
                        f"--set=seed={seed}"],
                       check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(run_dir, "summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
    return summary["env_steps_per_second"], summary["eval_return_mean"]


def peer_rate(python, num_envs):
    script = HERE.parent / "peers" / "sb3_ppo.py"
    out = subprocess.run([python, str(script), "--num_envs", str(num_envs)], check=True,
                         capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build_dir", required=True)
    parser.add_argument("--peers_python", required=True)
    parser.add_argument("--steps", type=int, default=1000000)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    ours, returns, peers = [], [], {1: [], 8: []}
    for seed in range(1, args.rounds + 1):
        rate, mean = our_rate(args.build_dir, args.steps, seed)
        ours.append(rate)
        returns.append(mean)
        for num_envs, rates in peers.items():
            answer = peer_rate(args.peers_python, num_envs)
            rates.append(answer["steps_per_second"])
    for num_envs, rates in peers.items():
        print(json.dumps({"name": "system.ppo", "case": f"lecture/half_cheetah/peer_{num_envs}_envs",
                          "value": statistics.median(ours), "unit": "env steps/s",
                          "peer": answer["peer"], "peer_value": statistics.median(rates),
                          "ratio": statistics.median(ours) / statistics.median(rates),
                          "rounds": args.rounds, "return": statistics.median(returns),
                          "machine": machine()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
